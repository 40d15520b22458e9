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
/** The text that describes the default of a setting without a fixed default. */
const unset = (text: string) => ({ unset: text })

/**
 * Every setting, its default in the spelling an operator would write, and its description in Markdown. docs/settings.md is generated
 * from them (`npm run docs`).
 */
export const settings = z.object({
  HOST: host.prefault('127.0.0.1').describe('The address to listen on. The image sets `0.0.0.0`.'),
  PORT: port.prefault('3001').describe('The port to listen on. `0` picks a free one.'),
  ISSUER: issuer
    .optional()
    .meta(unset('`http://localhost:PORT`'))
    .describe(
      'The `iss` of every access token, and the base of every URL in the discovery document. It must be the same on every replica.',
    ),
  DATABASE_URL: databaseUrl
    .optional()
    .meta({ ...secret, ...unset('embedded') })
    .describe(
      'Postgres 15 to 18: `postgres://USER:PASSWORD@HOST:5432/DATABASE`. It can name several hosts: `HOST1:5432,HOST2:5432`. Assay detects a pgbouncer at start and says what it needs. Without this setting Assay uses the embedded database.',
    ),
  DIRECT_DATABASE_URL: databaseUrl
    .optional()
    .meta(secret)
    .describe('The same database without the pooler, for migrations and notifications.'),
  REDIS_URL: redisUrl
    .optional()
    .meta(secret)
    .describe(
      'A Redis (6 or newer) or Valkey that the replicas share: `redis://:PASSWORD@HOST:6379`, or `rediss://` for TLS. See [operating.md](operating.md#redis-or-valkey).',
    ),
  DATA_DIR: z
    .string()
    .prefault('./data')
    .describe(
      'The folder of the embedded database and of the keys that the first start generates. Only the user that runs Assay can read its files.',
    ),
  MASTER_KEYS: masterKeys
    .optional()
    .meta({ ...secret, ...unset('generated if embedded') })
    .describe(
      '`id:base64,...`, 32 bytes each. The first key encrypts, and all of them decrypt. The embedded database generates one at the first start.',
    ),
  ADMIN_TOKEN: adminToken
    .optional()
    .meta({ ...secret, ...unset('generated if embedded') })
    .describe(
      "The first operator's Bearer token, for `/admin` and `/metrics`: at least 32 of the characters `A-Z a-z 0-9 - . _ ~ + /`, with `=` only at the end. In the audit its owner is `operator:admin`. The embedded database generates one at the first start.",
    ),
  OPERATORS: operators
    .optional()
    .meta(secret)
    .describe(
      "More operators, each with a name for the audit: `alice:TOKEN,grafana:read:TOKEN`. An operator with `read:` can't change anything.",
    ),
  SERVICES: services
    .optional()
    .meta(secret)
    .describe(
      '`name:right+right:secret,...`: gateways and backends that serve all customers, each with its rights: `gateway:introspect:SECRET,shop-api:issue+refresh+revoke:SECRET` ([what each right permits](../SECURITY.md#credentials-and-what-they-may-do)). They authenticate with Basic: the name is the user, and the secret is the password.',
    ),
  ACCESS_TOKEN_TTL: seconds('1s', '24h', '5m')
    .prefault('5m')
    .describe(
      'The lifetime of an access token, unless `/issue` asks for another one. google-auth-library refreshes a token of `5m` or less at every use ([what to set](clients.md#libraries-that-keep-their-first-refresh-token)).',
    ),
  MAX_ACCESS_TOKEN_TTL: seconds('1s', '24h', '15m')
    .prefault('15m')
    .describe('The longest lifetime that `/issue` can ask for, at most `24h`.'),
  // Ten years keep every sum of times inside what the database and JavaScript can hold.
  REFRESH_TOKEN_TTL: seconds('1s', '3650d', '30d')
    .prefault('30d')
    .describe('Idle timeout of a session: it ends when it is not refreshed for this long.'),
  SESSION_MAX_TTL: seconds('1s', '3650d', '90d').prefault('90d').describe('Absolute lifetime of a session.'),
  REFRESH_POLICY: oneOf('until_confirmed', 'grace_only', 'strict', 'reusable')
    .prefault('until_confirmed')
    .describe(
      'How long a refresh token that was used still returns its successor. `until_confirmed`: until the client uses the successor or its access token, and for `REFRESH_GRACE` after that. `grace_only`: for `REFRESH_GRACE` after the refresh. `strict`: never. A later use of the old token ends the session. `reusable`: a client that authenticates with an API key keeps its refresh token until the session ends, and other clients are treated as with `until_confirmed` ([what it costs](../SECURITY.md#what-is-not-promised), [for which libraries](clients.md#libraries-that-keep-their-first-refresh-token)).',
    ),
  REFRESH_GRACE: seconds('0s', '24h', '10s')
    .prefault('10s')
    .describe(
      "Grace period for concurrent refreshes, for example of two tabs. Within it a thief [can't be told apart](../SECURITY.md#what-is-not-promised) from a second tab.",
    ),
  MAX_STALENESS: milliseconds('500ms', '5m', '5s')
    .prefault('5s')
    .describe("How long a replica that can't reach the database still accepts tokens: `500ms` to `5m`."),
  SIGNUP: oneOf('open', 'closed')
    .prefault('open')
    .describe(
      '`closed`: only operators create customers. The image and the files in `deploy/` set `closed`.',
    ),
  TRUST_PROXY: proxies
    .optional()
    .describe('Addresses and ranges of the proxies whose `X-Forwarded-For` is trusted.'),
  TOKEN_COOKIE: cookieName
    .optional()
    .describe(
      'The cookie from which `/verify` takes the token. A Bearer header takes precedence. If the browser sends several cookies of this name, the valid one counts, and valid ones of different subjects get 401; the example files for nginx, HAProxy and Caddy pass on only one.',
    ),
  KEY_MAX_AGE: seconds('0s', '3650d', '90d')
    .prefault('90d')
    .describe(
      "The age at which signing keys are rotated automatically. Each customer's keys are rotated up to a tenth earlier, so that not all customers are rotated at once. `0s`: never.",
    ),
  // The minimum is above every access token's lifetime: the audit is the only trace of a token without a
  // session.
  AUDIT_RETENTION: seconds('2d', '36500d', '400d')
    .prefault('400d')
    .describe(
      'How long the audit is kept, in whole months and at least `2d`. The table of a month is dropped a week later.',
    ),
  TOKENS_PER_MINUTE: count(1, 1_000_000_000)
    .prefault('6000')
    .describe(
      "How many tokens each process issues to one customer in a minute, and how many refreshes it accepts. Further requests get 429. One session may be refreshed a hundredth as often, but at least 60 times. A customer's policy can set another number.",
    ),
  WORKERS: workers
    .prefault('1')
    .describe(
      'The number of processes that share the port. `auto`: one per core. More than one needs Postgres.',
    ),
  LOG_LEVEL: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent')
    .prefault('info')
    .describe('`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `silent`.'),
})

export type Settings = z.output<typeof settings>
export type SettingName = keyof Settings

/** The settings above as a list, for the documentation and for reading the environment. */
export const SETTINGS = settings.keyof().options.map(name => {
  const schema = settings.shape[name]
  return {
    name,
    /** The default as an operator would write it. Undefined if the setting has no fixed default. */
    default: schema instanceof z.ZodPrefault ? schema.def.defaultValue : undefined,
    /** The text that describes the default if there is no fixed one. */
    unset: typeof schema.meta()?.unset === 'string' ? (schema.meta()?.unset as string) : 'none',
    about: schema.description ?? '',
    secret: schema.meta()?.secret === true,
  }
})
