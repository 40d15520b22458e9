import { z } from 'zod'
import { digest } from '../crypto/credentials.ts'
import { SetupError } from '../lib/errors.ts'
import { describeMisspelt } from './misspelt.ts'
import { place, rules, secretsDiffer } from './refinements.ts'
import { SETTINGS, type SettingName, type Settings, settings } from './schema.ts'
import { secretText } from './secret-text.ts'

export { describeMisspelt } from './misspelt.ts'
export { SETTINGS } from './schema.ts'
export { MAX_WORKERS } from './values.ts'

type Environment = Record<string, string | undefined>
type ReadFile = (path: string) => string

export interface Config extends ReturnType<typeof toConfig> {
  /** The path of each secret that was read from a file. */
  secretFiles: Partial<Record<SettingName, string>>
  /** The operators' tokens and services' secrets as they were written. Some may be read again from their files. */
  credentialTexts: Partial<Record<CredentialSetting, string>>
}

/** These can change while the server runs, if they are in files. */
export const CREDENTIAL_SETTINGS = ['ADMIN_TOKEN', 'OPERATORS', 'SERVICES'] as const
export type CredentialSetting = (typeof CREDENTIAL_SETTINGS)[number]
/** The settings with URLs whose user and password can change while the server runs. */
export type UrlSetting = 'DATABASE_URL' | 'DIRECT_DATABASE_URL' | 'REDIS_URL'

/** Lists every problem in one message. No value is repeated, because many people may see the output. */
export class ConfigError extends SetupError {
  readonly problems: string[]

  constructor(problems: string[]) {
    super(['invalid settings:', ...problems].join('\n'))
    this.problems = problems
  }
}

const checked = settings.check(...rules, secretsDiffer)

/** Loads the settings. Throws ConfigError with all problems at once, so that they can be fixed together. */
export function loadConfig(env: Environment, readFile: ReadFile): Config {
  const { values, texts, secretFiles } = parseSettings(env, readFile, checked, () => true)
  return { ...toConfig(values), secretFiles, credentialTexts: pickCredentials(texts) }
}

/**
 * Removes the secrets from the environment. Otherwise they would be in every worker's /proc/PID/environ and in Node's diagnostic
 * reports.
 */
export function forgetSecrets(env: Environment) {
  for (const { name, secret } of SETTINGS) if (secret) delete env[name]
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
  const { values: s } = parseSettings(env, readFile, databaseSettings, name => name in databaseSettings.shape)
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
) {
  const { texts, unread, secretFiles } = readTexts(env, readFile)
  const issues = checked.safeParse(texts).error?.issues.map(issue => ({ name: issue.path[0], issue })) ?? []
  const problems = [
    ...[...unread].filter(([name]) => isNeeded(name)).map(([, problem]) => problem),
    ...issues
      .filter(({ name }) => isNeeded(name as SettingName) && !unread.has(name as SettingName))
      .map(({ issue }) => describe(issue)),
  ]
  // A setting that is missing may only be misspelt.
  if (problems.length > 0) throw new ConfigError([...problems, ...describeMisspelt(env)])
  return { values: schema.parse(texts), texts, secretFiles }
}

/** The settings as the operator wrote them, before they are parsed. */
function readTexts(env: Environment, readFile: ReadFile) {
  const texts: Partial<Record<SettingName, string>> = {}
  /** Settings that couldn't be read at all; their text is empty, so that they count as set. */
  const unread = new Map<SettingName, string>()
  const secretFiles: Config['secretFiles'] = {}
  for (const setting of SETTINGS) {
    const { text, problem } = readText(setting, env, readFile)
    if (text !== undefined) texts[setting.name] = text
    const path = setting.secret ? env[`${setting.name}_FILE`] : undefined
    if (path) secretFiles[setting.name] = path
    if (problem !== undefined) unread.set(setting.name, problem)
  }
  return { texts, unread, secretFiles }
}

type Outcome = { text?: string | undefined; problem?: string }

function readText(
  { name, secret }: (typeof SETTINGS)[number],
  env: Environment,
  readFile: ReadFile,
): Outcome {
  // An empty string counts as unset, because compose files and shells omit a variable in this way.
  const text = env[name] || undefined
  const path = secret ? env[`${name}_FILE`] : undefined
  if (!path) return { text }
  if (text === undefined) return readSecretFile(`${name}_FILE`, path, readFile)
  return {
    text: '',
    problem: `${name}: is set, and so is ${name}_FILE; keep one of them, for example ${name}_FILE`,
  }
}

function readSecretFile(name: string, path: string, readFile: ReadFile): Outcome {
  const example = 'name a readable file that contains the secret, for example /run/secrets/assay'
  try {
    const text = secretText(readFile(path))
    return text === '' ? { text, problem: `${name}: ${shown(path)} is empty; ${example}` } : { text }
  } catch (error) {
    const { code = 'unreadable' } = error as NodeJS.ErrnoException
    return { text: '', problem: `${name}: can't read ${shown(path)} (${code}); ${example}` }
  }
}

// A value that doesn't look like a path may be the secret itself, put into the wrong variable.
function shown(path: string): string {
  return /^\.{0,2}\//.test(path) ? path : 'the file it names'
}

/** Parses the text of MASTER_KEYS, or of the file that replaces it, which `source` then names. */
export function parseMasterKeys(text: string, source = 'MASTER_KEYS') {
  return parseOne(settings.shape.MASTER_KEYS.unwrap(), text, source)
}

export function parseAdminToken(text: string, source = 'ADMIN_TOKEN') {
  return parseOne(settings.shape.ADMIN_TOKEN.unwrap(), text, source)
}

const pickCredentials = (texts: Partial<Record<SettingName, string>>): Config['credentialTexts'] =>
  Object.fromEntries(CREDENTIAL_SETTINGS.flatMap(name => (texts[name] ? [[name, texts[name]]] : [])))

const credentialSettings = settings
  .pick({ ADMIN_TOKEN: true, OPERATORS: true, SERVICES: true })
  .required({ ADMIN_TOKEN: true })
const differing = z.custom<Settings>().check(secretsDiffer)

/** Parses credentials that were read again, by the same rules as at the start. Throws ConfigError. */
export function parseCredentials(texts: Config['credentialTexts'], masterKeys: Config['masterKeys']) {
  const parsed = credentialSettings.safeParse(texts)
  const compared = differing.safeParse({ ...parsed.data, MASTER_KEYS: masterKeys })
  const { issues = [] } = parsed.error ?? compared.error ?? {}
  if (parsed.data === undefined || issues.length > 0)
    throw new ConfigError(issues.map(issue => describe(issue)))
  return { ...toCredentials(parsed.data), adminToken: parsed.data.ADMIN_TOKEN }
}

export type Credentials = ReturnType<typeof parseCredentials>

/** Whether this is a URL that the setting can have. */
export const parseUrl = (name: UrlSetting, text: string): boolean =>
  settings.shape[name].safeParse(text).success

function parseOne<T>(schema: z.ZodType<T, string>, text: string, source: string): T {
  const parsed = schema.safeParse(text)
  if (parsed.success) return parsed.data
  throw new ConfigError(parsed.error.issues.map(issue => describe(issue, [source])))
}

function describe(issue: z.core.$ZodIssue, prefix: string[] = []): string {
  return `${place([...prefix, ...issue.path])}: ${issue.message}`
}

const toCredentials = (s: Pick<Settings, CredentialSetting>) => ({
  adminToken: s.ADMIN_TOKEN,
  /** The holder of ADMIN_TOKEN is an operator as well. `digest` is the SHA-256 of the token. */
  operators: (s.OPERATORS ?? []).map(({ id, secret, readOnly }) => ({
    name: id,
    readOnly,
    digest: digest(secret),
  })),
  services: (s.SERVICES ?? []).map(({ id, may, secret }) => ({ name: id, may, digest: digest(secret) })),
})

function toConfig(s: Settings) {
  return {
    host: s.HOST,
    /** With 0 the system chooses a free port. */
    port: s.PORT,
    // `origin` omits port 80, as every client does.
    issuer: s.ISSUER ?? new URL(`http://localhost:${s.PORT}`).origin,
    /** If undefined, the embedded database in `dataDir` is used. */
    databaseUrl: s.DATABASE_URL,
    directDatabaseUrl: s.DIRECT_DATABASE_URL,
    redisUrl: s.REDIS_URL,
    dataDir: s.DATA_DIR,
    /**
     * The first key encrypts and all of them decrypt. Undefined only with the embedded database, whose first start creates a key.
     * The same applies to the operator's token.
     */
    masterKeys: s.MASTER_KEYS,
    ...toCredentials(s),
    /** Seconds, like every time here but `maxStaleness`. */
    accessTokenTtl: s.ACCESS_TOKEN_TTL,
    maxAccessTokenTtl: s.MAX_ACCESS_TOKEN_TTL,
    refreshTokenTtl: s.REFRESH_TOKEN_TTL,
    sessionMaxTtl: s.SESSION_MAX_TTL,
    refreshPolicy: s.REFRESH_POLICY,
    refreshGrace: s.REFRESH_GRACE,
    /** Milliseconds. */
    maxStaleness: s.MAX_STALENESS,
    signup: s.SIGNUP,
    trustProxy: s.TRUST_PROXY ?? [],
    tokenCookie: s.TOKEN_COOKIE,
    keyMaxAge: s.KEY_MAX_AGE,
    tokensPerMinute: s.TOKENS_PER_MINUTE,
    auditRetention: s.AUDIT_RETENTION,
    workers: s.WORKERS,
    logLevel: s.LOG_LEVEL,
  }
}
