import type { z } from 'zod'
import { digest } from '../crypto/credentials.ts'
import type { SealingKey } from '../crypto/envelope.ts'
import { type Environment, type ReadFile, readTexts } from './env.ts'
import { place, rules, secretsDiffer } from './refinements.ts'
import { type SettingName, type Settings, settings } from './schema.ts'

export { SETTINGS } from './schema.ts'
export { MAX_WORKERS } from './values.ts'

export type RefreshPolicy = 'until_confirmed' | 'grace_only' | 'strict'

export interface ResourceServer {
  id: string
  /** SHA-256 of its secret: at 32 random characters nothing slower is needed. */
  digest: Buffer
}

/** An operator from OPERATORS. The holder of ADMIN_TOKEN is an operator as well. */
export interface OperatorConfig {
  /** The name that identifies the operator in the audit log. */
  name: string
  /** A read-only operator may read but not change anything. */
  readOnly: boolean
  /** SHA-256 of its token. */
  digest: Buffer
}

export interface Config {
  host: string
  /** With 0 the system chooses a free port. */
  port: number
  issuer: string
  /** If undefined, the embedded database in `dataDir` is used. */
  databaseUrl: string | undefined
  directDatabaseUrl: string | undefined
  /** If undefined, no Redis is used. */
  redisUrl: string | undefined
  dataDir: string
  /**
   * The first key seals and all of them open. Undefined only with the embedded database, whose first start
   * creates one.
   */
  masterKeys: SealingKey[] | undefined
  /** Undefined only with the embedded database, whose first start creates one. */
  adminToken: string | undefined
  operators: OperatorConfig[]
  resourceServers: ResourceServer[]
  /** Seconds, like every `...Ttl` here. */
  accessTokenTtl: number
  maxAccessTokenTtl: number
  /** Idle timeout of a session. */
  refreshTokenTtl: number
  /** Absolute session lifetime. */
  sessionMaxTtl: number
  refreshPolicy: RefreshPolicy
  /** Seconds. */
  refreshGrace: number
  /** Milliseconds. */
  maxStaleness: number
  signup: 'open' | 'closed'
  /** Addresses and CIDR ranges. */
  trustProxy: string[]
  tokenCookie: string | undefined
  /** Seconds; 0 for never. */
  keyMaxAge: number
  /** Seconds. */
  auditRetention: number
  /** auto: one for each core. */
  workers: number | 'auto'
  logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'
}

/** Lists every problem in one message. No value is repeated, because many people may see the output. */
export class ConfigError extends Error {
  readonly problems: string[]

  constructor(problems: string[]) {
    super(['the settings are wrong:', ...problems].join('\n'))
    this.name = 'ConfigError'
    this.problems = problems
  }
}

const checked = settings.check(...rules, secretsDiffer)

/** Loads the settings. Throws ConfigError with all problems at once, so that they can be fixed together. */
export function loadConfig(env: Environment, readFile: ReadFile): Config {
  return toConfig(parseSettings(env, readFile, checked, () => true))
}

const databaseSettings = settings.pick({ DATABASE_URL: true, DIRECT_DATABASE_URL: true, DATA_DIR: true })

/**
 * Loads only the database settings: a migration needs no secret except the one in the URL. Throws
 * ConfigError.
 */
export function loadDatabaseConfig(
  env: Environment,
  readFile: ReadFile,
): Pick<Config, 'databaseUrl' | 'directDatabaseUrl' | 'dataDir'> {
  const s = parseSettings(env, readFile, databaseSettings, name => name in databaseSettings.shape)
  return { databaseUrl: s.DATABASE_URL, directDatabaseUrl: s.DIRECT_DATABASE_URL, dataDir: s.DATA_DIR }
}

/**
 * Parses the settings with `schema`. Throws ConfigError if any setting for which `isNeeded` returns true is
 * invalid.
 */
function parseSettings<T>(
  env: Environment,
  readFile: ReadFile,
  schema: z.ZodType<T>,
  isNeeded: (name: SettingName) => boolean,
): T {
  const { texts, unread } = readTexts(env, readFile)
  const issues = checked.safeParse(texts).error?.issues.map(issue => ({ name: issue.path[0], issue })) ?? []
  const problems = [
    ...[...unread].filter(([name]) => isNeeded(name)).map(([, problem]) => problem),
    ...issues
      .filter(({ name }) => isNeeded(name as SettingName) && !unread.has(name as SettingName))
      .map(({ issue }) => describe(issue)),
  ]
  if (problems.length > 0) throw new ConfigError(problems)
  return schema.parse(texts)
}

/** The text of MASTER_KEYS, or of the file that stands in for it, which `source` then names. */
export function parseMasterKeys(text: string, source = 'MASTER_KEYS'): SealingKey[] {
  return parseOne(settings.shape.MASTER_KEYS.unwrap(), text, source)
}

export function parseAdminToken(text: string, source = 'ADMIN_TOKEN'): string {
  return parseOne(settings.shape.ADMIN_TOKEN.unwrap(), text, source)
}

function parseOne<T>(schema: z.ZodType<T, string>, text: string, source: string): T {
  const parsed = schema.safeParse(text)
  if (parsed.success) return parsed.data
  throw new ConfigError(parsed.error.issues.map(issue => describe(issue, [source])))
}

function describe(issue: z.core.$ZodIssue, prefix: string[] = []): string {
  return `${place([...prefix, ...issue.path])}: ${issue.message}`
}

function toConfig(s: Settings): Config {
  return {
    host: s.HOST,
    port: s.PORT,
    // `origin` omits port 80, as every client will.
    issuer: s.ISSUER ?? new URL(`http://localhost:${s.PORT}`).origin,
    databaseUrl: s.DATABASE_URL,
    directDatabaseUrl: s.DIRECT_DATABASE_URL,
    redisUrl: s.REDIS_URL,
    dataDir: s.DATA_DIR,
    masterKeys: s.MASTER_KEYS,
    adminToken: s.ADMIN_TOKEN,
    operators: (s.OPERATORS ?? []).map(({ id, secret, readOnly }) => ({
      name: id,
      readOnly,
      digest: digest(secret),
    })),
    resourceServers: (s.RESOURCE_SERVERS ?? []).map(toResourceServer),
    accessTokenTtl: s.ACCESS_TOKEN_TTL,
    maxAccessTokenTtl: s.MAX_ACCESS_TOKEN_TTL,
    refreshTokenTtl: s.REFRESH_TOKEN_TTL,
    sessionMaxTtl: s.SESSION_MAX_TTL,
    refreshPolicy: s.REFRESH_POLICY,
    refreshGrace: s.REFRESH_GRACE,
    maxStaleness: s.MAX_STALENESS,
    signup: s.SIGNUP,
    trustProxy: s.TRUST_PROXY ?? [],
    tokenCookie: s.TOKEN_COOKIE,
    keyMaxAge: s.KEY_MAX_AGE,
    auditRetention: s.AUDIT_RETENTION,
    workers: s.WORKERS,
    logLevel: s.LOG_LEVEL,
  }
}

function toResourceServer({ id, secret }: { id: string; secret: string }): ResourceServer {
  return { id, digest: digest(secret) }
}
