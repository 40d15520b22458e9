import { z } from 'zod'
import { adminToken, masterKeys, operators, services } from './secret-schemas.ts'
import {
  cookieName,
  count,
  databaseUrl,
  host,
  issuer,
  milliseconds,
  oneOf,
  port,
  proxies,
  redisUrl,
  seconds,
  workers,
} from './values.ts'

/** A secret setting can also be read from the file that NAME_FILE names. */
const secret = { secret: true }

/** Every setting, its default in the spelling an operator would write, and what it is for. */
export const settings = z.object({
  HOST: host.prefault('127.0.0.1').describe('address to listen on'),
  PORT: port.prefault('3001').describe('port to listen on; 0 takes a free one'),
  ISSUER: issuer.optional().describe('the `iss` of every access token; http://localhost:PORT when not set'),
  DATABASE_URL: databaseUrl.optional().meta(secret).describe('Postgres; embedded in DATA_DIR when not set'),
  DIRECT_DATABASE_URL: databaseUrl
    .optional()
    .meta(secret)
    .describe('the same database without the pooler, for LISTEN and migrations'),
  REDIS_URL: redisUrl
    .optional()
    .meta(secret)
    .describe('Redis or Valkey, to share sealed records, limits and hints'),
  DATA_DIR: z.string().prefault('./data').describe('folder of the embedded database and what it makes'),
  MASTER_KEYS: masterKeys.optional().meta(secret).describe('`id:base64,...`; the first seals, all open'),
  ADMIN_TOKEN: adminToken.optional().meta(secret).describe('the operator’s Bearer token'),
  OPERATORS: operators
    .optional()
    .meta(secret)
    .describe('more operators, whom the audit names: `name:token,name:read:token`'),
  SERVICES: services
    .optional()
    .meta(secret)
    .describe('`name:right+right:secret,...`; services that serve all customers'),
  ACCESS_TOKEN_TTL: seconds('1s', '24h', '5m').prefault('5m').describe('life of an access token'),
  MAX_ACCESS_TOKEN_TTL: seconds('1s', '24h', '15m')
    .prefault('15m')
    .describe('the longest life to be asked for'),
  // Ten years keep every sum of times inside what the database and JavaScript can hold.
  REFRESH_TOKEN_TTL: seconds('1s', '3650d', '30d')
    .prefault('30d')
    .describe('a session ends when idle so long'),
  SESSION_MAX_TTL: seconds('1s', '3650d', '90d')
    .prefault('90d')
    .describe('a session ends after so long in all'),
  REFRESH_POLICY: oneOf('until_confirmed', 'grace_only', 'strict', 'reusable')
    .prefault('until_confirmed')
    .describe('when a used refresh token may be presented again'),
  REFRESH_GRACE: seconds('0s', '24h', '10s').prefault('10s').describe('how late two tabs may be'),
  MAX_STALENESS: milliseconds('500ms', '5m', '5s')
    .prefault('5s')
    .describe('how long a replica that is cut off may still say yes'),
  SIGNUP: oneOf('open', 'closed').prefault('open').describe('closed: only operators create customers'),
  TRUST_PROXY: proxies.optional().describe('proxies whose X-Forwarded-For is believed: addresses and ranges'),
  TOKEN_COOKIE: cookieName.optional().describe('cookie to take the access token from; a Bearer header wins'),
  KEY_MAX_AGE: seconds('0s', '3650d', '90d')
    .prefault('90d')
    .describe('age at which secrets are rotated without being asked; 0s for never'),
  // The minimum is above every access token's lifetime: the audit is the only trace of a token without a
  // session.
  AUDIT_RETENTION: seconds('2d', '36500d', '400d').prefault('400d').describe('how long the audit is kept'),
  TOKENS_PER_MINUTE: count(1, 1_000_000_000)
    .prefault('6000')
    .describe('tokens that one customer may be issued in a minute by each process, and as many refreshes'),
  WORKERS: workers
    .prefault('1')
    .describe('processes that serve the port together; auto for one to each core'),
  LOG_LEVEL: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent')
    .prefault('info')
    .describe('least severe message to log'),
})

export type Settings = z.output<typeof settings>
export type SettingName = keyof Settings

/** The settings above as a list, for the documentation and for reading the environment. */
export const SETTINGS = settings.keyof().options.map(name => {
  const schema = settings.shape[name]
  return {
    name,
    /** As an operator would write it. Undefined if the setting has no fixed default. */
    default: schema instanceof z.ZodPrefault ? schema.def.defaultValue : undefined,
    about: schema.description ?? '',
    secret: schema.meta()?.secret === true,
  }
})
