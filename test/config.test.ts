import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type Config,
  ConfigError,
  describeMisspelt,
  loadConfig,
  parseAdminToken,
  parseMasterKeys,
  SETTINGS,
} from '../server/config/load.ts'
import { bearerToken } from '../server/http/credentials.ts'

type Environment = Record<string, string>

let made = 0
/** Looks random, and is the same in every run. */
const secretBytes = () => createHash('sha256').update(`${made++}`).digest()
const random = () => secretBytes().toString('base64')
const hex = () => secretBytes().toString('hex')
const POSTGRES = 'postgres://assay:p%23w@db.internal:5432/assay'
/** The minimum settings of a server on Postgres. */
const onPostgres = () => ({ DATABASE_URL: POSTGRES, MASTER_KEYS: `m1:${random()}`, ADMIN_TOKEN: random() })

function noFile(): never {
  throw Object.assign(new Error('no such file'), { code: 'ENOENT' })
}

function load(env: Environment, files: Record<string, string> = {}): Config {
  return loadConfig(env, path => files[path] ?? noFile())
}

function problemsOf(env: Environment, files: Record<string, string> = {}): string[] {
  try {
    load(env, files)
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError)
    return (error as ConfigError).problems
  }
  return []
}

/** A refused setting gives one problem that names the setting and has an example. */
function refusal(name: string) {
  return [expect.stringMatching(new RegExp(`^${name}(_FILE)?(, entry \\d+)?: .+ for example .+$`))]
}

test('without any setting the server is embedded, and every default is as documented', () => {
  expect(load({})).toEqual({
    host: '127.0.0.1',
    port: 3001,
    issuer: 'http://localhost:3001',
    databaseUrl: undefined,
    directDatabaseUrl: undefined,
    redisUrl: undefined,
    dataDir: './data',
    masterKeys: undefined,
    adminToken: undefined,
    operators: [],
    services: [],
    accessTokenTtl: 300,
    maxAccessTokenTtl: 900,
    refreshTokenTtl: 30 * 86_400,
    sessionMaxTtl: 90 * 86_400,
    refreshPolicy: 'until_confirmed',
    refreshGrace: 10,
    maxStaleness: 5000,
    signup: 'open',
    trustProxy: [],
    tokenCookie: undefined,
    tokensPerMinute: 6000,
    keyMaxAge: 90 * 86_400,
    auditRetention: 400 * 86_400,
    workers: 1,
    logLevel: 'info',
    secretFiles: {},
    credentialTexts: {},
  })
})

test('an empty setting counts as unset', () => {
  const empty = SETTINGS.flatMap(({ name }) => [
    [name, ''],
    [`${name}_FILE`, ''],
  ])
  expect(load(Object.fromEntries(empty))).toEqual(load({}))
})

test('the list of settings marks defaults and secrets', () => {
  expect(SETTINGS).toHaveLength(26)
  expect(SETTINGS.every(({ about }) => about.length > 0)).toBe(true)
  const secrets = SETTINGS.filter(({ secret }) => secret).map(({ name }) => name)
  expect(secrets).toEqual([
    'DATABASE_URL',
    'DIRECT_DATABASE_URL',
    'REDIS_URL',
    'MASTER_KEYS',
    'ADMIN_TOKEN',
    'OPERATORS',
    'SERVICES',
  ])
  const written = SETTINGS.flatMap(({ name, default: text }) => (text === undefined ? [] : [[name, text]]))
  expect(load(Object.fromEntries(written))).toEqual(load({}))
})

const GOOD: [name: string, text: string, field: keyof Config, value: unknown][] = [
  ['HOST', '0.0.0.0', 'host', '0.0.0.0'],
  ['HOST', '::', 'host', '::'],
  ['HOST', 'localhost', 'host', 'localhost'],
  ['PORT', '0', 'port', 0],
  ['PORT', '65535', 'port', 65_535],
  ['PORT', '8080', 'issuer', 'http://localhost:8080'],
  ['PORT', '80', 'issuer', 'http://localhost'],
  ['ISSUER', 'https://auth.example.com', 'issuer', 'https://auth.example.com'],
  ['ISSUER', 'http://10.0.0.1:3001/auth', 'issuer', 'http://10.0.0.1:3001/auth'],
  ['REDIS_URL', 'redis://10.0.0.1', 'redisUrl', 'redis://10.0.0.1'],
  ['REDIS_URL', 'rediss://u:p%23w@cache:6380/1', 'redisUrl', 'rediss://u:p%23w@cache:6380/1'],
  ['DATA_DIR', '/var/lib/assay', 'dataDir', '/var/lib/assay'],
  ['ACCESS_TOKEN_TTL', '1s', 'accessTokenTtl', 1],
  ['ACCESS_TOKEN_TTL', '2000ms', 'accessTokenTtl', 2],
  ['MAX_ACCESS_TOKEN_TTL', '24h', 'maxAccessTokenTtl', 86_400],
  ['REFRESH_TOKEN_TTL', '90d', 'refreshTokenTtl', 90 * 86_400],
  ['SESSION_MAX_TTL', '3650d', 'sessionMaxTtl', 3650 * 86_400],
  ['REFRESH_POLICY', 'strict', 'refreshPolicy', 'strict'],
  ['REFRESH_POLICY', 'reusable', 'refreshPolicy', 'reusable'],
  ['REFRESH_GRACE', '0s', 'refreshGrace', 0],
  ['MAX_STALENESS', '500ms', 'maxStaleness', 500],
  ['MAX_STALENESS', '5m', 'maxStaleness', 300_000],
  ['SIGNUP', 'closed', 'signup', 'closed'],
  ['TRUST_PROXY', '10.0.0.0/8, ::1,fd00::/8', 'trustProxy', ['10.0.0.0/8', '::1', 'fd00::/8']],
  ['TOKEN_COOKIE', '__Host-token', 'tokenCookie', '__Host-token'],
  ['KEY_MAX_AGE', '0s', 'keyMaxAge', 0],
  ['TOKENS_PER_MINUTE', '120', 'tokensPerMinute', 120],
  ['LOG_LEVEL', 'silent', 'logLevel', 'silent'],
]

test.each(GOOD)('%s=%s is read', (name, text, field, value) => {
  expect(load({ [name]: text })[field]).toEqual(value)
})

test.each([
  ['1', 1],
  ['2', 2],
  ['64', 64],
  ['auto', 'auto'],
])('WORKERS=%s is accepted with Postgres', (text, workers) => {
  expect(load({ ...onPostgres(), WORKERS: text }).workers).toBe(workers)
})

test.each([
  'postgres://h1,h2/d',
  'postgres://u:p@h1:5432,h2:5433/d?target_session_attrs=primary',
  'postgres://u:p@[::1]:5432,10.0.0.1/d',
  'postgres://u:p@/d?host=h1,h2',
  'postgres://u:p@/d?host=h1,/run/postgres&port=5432,5433',
  'postgres://h1,h2/d?port=6432',
  'postgres://h/d?sslrootcert=system&channel_binding=require',
])('DATABASE_URL=%s is accepted, as by libpq', text => {
  expect(load({ ...onPostgres(), DATABASE_URL: text }).databaseUrl).toBe(text)
})

const BAD: Record<string, string[]> = {
  HOST: ['999.1.1.1', 'a b', '-a', '[::1]', 'http://localhost'],
  PORT: ['65536', '-1', '3001 ', '0x10', '03001', '1e3', '3.5', 'http'],
  ISSUER: [
    'auth.example.com',
    'ftp://auth.example.com',
    'https://auth.example.com/',
    'https://auth.example.com/a/',
    'https://auth.example.com?',
    'https://auth.example.com#',
    'https://auth.example.com?a=b',
    'https://user@auth.example.com',
    'https://AUTH.example.com',
    'https://auth.example.com:443',
    'https://auth.example.com/a/../b',
    'https://auth.example.com ',
    'https://',
  ],
  ACCESS_TOKEN_TTL: ['300', '5', '5 m', '5M', '-5m', '1.5m', '0s', '500ms', '1500ms', '25h', '5m\n', '05m'],
  MAX_ACCESS_TOKEN_TTL: ['86401s', '2d', '15', '0m'],
  REFRESH_TOKEN_TTL: ['0d', '3651d', '30', `${'9'.repeat(400)}d`],
  SESSION_MAX_TTL: ['forever', '3651d'],
  REFRESH_POLICY: ['Strict', 'none'],
  REFRESH_GRACE: ['10', '10500ms', '25h'],
  MAX_STALENESS: ['499ms', '301s', '5', '0s'],
  SIGNUP: ['OPEN', 'true'],
  TRUST_PROXY: [
    '10.0.0.0/33',
    '10.0.0',
    'true',
    'proxy.internal',
    '::1/129',
    '0.0.0.0/0',
    '::/0',
    '10.0.0.1,',
    '10.0.0.1 10.0.0.2',
  ],
  TOKEN_COOKIE: ['a b', 'a=b', 'a;b', 'naïve', '"a"'],
  AUDIT_RETENTION: ['1d', '0s', '400', '36501d', '1.5d'],
  KEY_MAX_AGE: ['90', 'never', '1500ms', '3651d'],
  TOKENS_PER_MINUTE: ['0', '-1', '6000/min', '1e3', '1000000001', '99999999999999999999'],
  WORKERS: ['0', '-1', '65', '100', '02', '2.5', '2 ', 'all', 'AUTO'],
  LOG_LEVEL: ['INFO', 'verbose'],
  MASTER_KEYS: [
    random(),
    'm1:',
    `:${random()}`,
    `m 1:${random()}`,
    `${'m'.repeat(33)}:${random()}`,
    `m1:${secretBytes().subarray(1).toString('base64')}`,
    `m1:${Buffer.concat([secretBytes(), Buffer.of(7)]).toString('base64')}`,
    `m1:${hex()}`,
    `m1:${random()}=`,
    // The last character but one has two unused bits; openssl sets them to zero.
    `m1:${random().slice(0, 42)}B=`,
    // Both alphabets in one key.
    `m1:+_${random().slice(2)}`,
    `m1:${random()},`,
    `m1:${random()},m1:${random()}`,
  ],
  ADMIN_TOKEN: [
    'x',
    random().slice(0, 31),
    `${random()} ${random()}`,
    `${random()}é`,
    `${random()}\n`,
    // Printable, but not allowed in a Bearer header (RFC 6750 2.1).
    ...['!', '$', '%', '"', ',', ':', '@', '{'].map(character => character + random()),
    `=${random()}`,
    `${random()}a`,
    '='.repeat(32),
  ],
  OPERATORS: [
    hex(),
    `alice:${hex().slice(0, 31)}`,
    `alice:read:${hex().slice(0, 31)}`,
    `alice:write:`,
    `Alice:${hex()}`,
    `admin:${hex()}`,
    `${'a'.repeat(33)}:${hex()}`,
    `alice:${hex()} `.repeat(2),
    ...['!', '$', '%', '"', ':', '@', '='].map(character => `alice:${character}${hex()}`),
    `alice:read:${hex()}=a`,
    `alice:${hex()},`,
    `alice:${hex()},alice:read:${hex()}`,
  ],
  SERVICES: [
    hex(),
    `gateway:${hex()}`,
    `gateway:introspect:${hex().slice(0, 31)}`,
    `gateway:introspect:${hex()}:${hex()}`,
    `gate.way:introspect:${hex()}`,
    `Gateway:introspect:${hex()}`,
    `7gateway:introspect:${hex()}`,
    `${'g'.repeat(41)}:introspect:${hex()}`,
    `gateway:introspect:${hex()}+`,
    `gateway:introspect:${hex()},`,
    `gateway::${hex()}`,
    `gateway:introspect+:${hex()}`,
    `gateway:introspect+admin:${hex()}`,
    `gateway:toString:${hex()}`,
    `gateway:introspect:${hex()},gateway:revoke:${hex()}`,
  ],
  DATABASE_URL: [
    'localhost',
    'mysql://u:p@h/d',
    'postgres:h/d',
    'postgres://u:p#w@h/d',
    ' postgres://h/d',
    'postgres://h/d\n',
    'postgres://h:port/d',
    'postgres://h/d?sslmode=verifyfull',
    'postgres://h/d?sslmode=allow',
    'postgres://h1,h2,h3/d?port=1,2',
    'postgres://u:p@/d?host=h1,h2&port=1,2,3',
    'postgres://h1,h2:port/d',
    'postgres://h1,h2/d?port=1,70000',
    'postgres://h1,h2/d?target_session_attrs=standby',
    'postgres://h1,h2/d?target_session_attrs=read-only',
    'postgres://h1,h2/d?target_session_attrs=prefer-standby',
    'postgres://h/d?SSLMODE=verify-full',
    'postgres://h/d?ssl_mode=require',
    'postgres://h/d?sslmode%20=verify-full',
    'postgres://h/d?sslmode',
    'postgres://h/d?sslmode=',
    'postgres://h/d?application_name=x?sslmode=verify-full',
    'postgres://h/d?a=b&amp;sslmode=verify-full',
    'postgres://h/d#?sslmode=verify-full',
    'postgres://h/d?ssl=on',
    'postgres://h/d?ssl=require',
    'postgres://h/d?requiressl=1',
    'postgres://h/d?require_auth=scram-sha-256',
    'postgres://h/d?sslmode=verify-full&ssl%6Dode=disable',
    'postgres://h/d?sslmode=verify-full&sslmode=disable',
    'postgres://h/d?sslmode=verify-ca',
    'postgres://h/d?sslrootcert=system&sslmode=require',
    'postgres://h/d?sslrootcert=system&sslmode=disable',
    'postgres://h/d?sslmode=require&channel_binding=require',
    'postgres://h/d?channel_binding=require',
    'postgres://h/d?sslmode=verify-ca&sslrootcert=/ca.crt&channel_binding=require',
    'postgres://h/d?port=70000',
    'postgres://h/d?port=0',
    'postgres://h/d?port=sekret',
    'postgres://h/d?sslnegotiation=sekret',
    'postgres://h/d?host=%00',
    'postgres://h/d?uselibpqcompat=false&sslmode=require',
  ],
  DIRECT_DATABASE_URL: ['mysql://u:p@h/d', 'postgres://'],
  REDIS_URL: [
    'cache:6379',
    'http://cache',
    'redis://',
    'redis://:p@',
    'redis://h/name',
    'redis://:p%w@h',
    ' redis://h',
  ],
}
const bad = Object.entries(BAD).flatMap(([name, texts]) =>
  texts.map((text): [string, string] => [name, text]),
)

test.each(bad)('%s=%j is one error, never replaced by the default', (name, text) => {
  const env = name.endsWith('DATABASE_URL') || name === 'WORKERS' ? onPostgres() : {}
  expect(problemsOf({ ...env, [name]: text })).toEqual(refusal(name))
})

test('these tests have a wrong value for every setting but a folder', () => {
  const tested = Object.keys(BAD)
  expect(SETTINGS.map(({ name }) => name).filter(name => !tested.includes(name))).toEqual(['DATA_DIR'])
})

test('one message lists all problems, one per line', () => {
  const refused = bad.filter(([name], i) => name !== bad[i - 1]?.[0])
  const names = refused.map(([name]) => name)
  const problems = problemsOf(Object.fromEntries(refused))
  expect(new Set(problems.map(problem => problem.replace(/[,:].*/, '')))).toEqual(new Set(names))
  expect(problems).toHaveLength(names.length)
  expect(() => load(Object.fromEntries(refused))).toThrow(problems.join('\n'))
})

test('a conflict between settings is reported along with a malformed one', () => {
  const problems = problemsOf({
    PORT: 'x',
    DATABASE_URL: 'x',
    ACCESS_TOKEN_TTL: '20m',
    SESSION_MAX_TTL: '1d',
  })
  expect(problems.map(problem => problem.split(':')[0]).sort()).toEqual([
    'ACCESS_TOKEN_TTL',
    'ADMIN_TOKEN',
    'DATABASE_URL',
    'MASTER_KEYS',
    'PORT',
    'REFRESH_TOKEN_TTL',
  ])
})

describe('settings that contradict each other', () => {
  test.each([
    ['ACCESS_TOKEN_TTL', { ACCESS_TOKEN_TTL: '16m' }],
    ['ACCESS_TOKEN_TTL', { MAX_ACCESS_TOKEN_TTL: '4m' }],
    ['ACCESS_TOKEN_TTL', { REFRESH_TOKEN_TTL: '4m' }],
    ['REFRESH_TOKEN_TTL', { REFRESH_TOKEN_TTL: '91d' }],
    ['REFRESH_TOKEN_TTL', { SESSION_MAX_TTL: '29d' }],
    ['DATABASE_URL', { DIRECT_DATABASE_URL: POSTGRES }],
    ['WORKERS', { WORKERS: '2' }],
    ['WORKERS', { WORKERS: 'auto' }],
    ['MASTER_KEYS', { ...onPostgres(), MASTER_KEYS: '' }],
    ['ADMIN_TOKEN', { ...onPostgres(), ADMIN_TOKEN: '' }],
  ])('%s is refused in %j', (name, env: Environment) => {
    expect(problemsOf(env)).toEqual(refusal(name))
  })

  test('equal lifetimes do not', () => {
    const env = { ACCESS_TOKEN_TTL: '15m', REFRESH_TOKEN_TTL: '15m', SESSION_MAX_TTL: '15m' }
    expect(problemsOf(env)).toEqual([])
  })

  test('a missing secret is reported with a command that creates one', () => {
    expect(problemsOf({ DATABASE_URL: POSTGRES }).join()).toMatch(
      /MASTER_KEYS.*openssl.*ADMIN_TOKEN.*openssl/,
    )
  })
})

describe('secrets', () => {
  test('the first master key seals, in either alphabet, padded or not', () => {
    const keys = Array.from({ length: 4 }, secretBytes)
    const [a, b, c, d] = keys as [Buffer, Buffer, Buffer, Buffer]
    const padded = `m.4:${a.toString('base64')}, m_3:${b.toString('base64url')}=`
    const text = `${padded},m2:${c.toString('base64').slice(0, 43)},m-1:${d.toString('base64url')}`
    const { masterKeys } = load({ ...onPostgres(), MASTER_KEYS: text })
    expect(masterKeys?.map(({ id }) => id)).toEqual(['m.4', 'm_3', 'm2', 'm-1'])
    expect(masterKeys?.map(({ bytes }) => Buffer.from(bytes))).toEqual(keys)
    expect(parseMasterKeys(text)).toEqual(masterKeys)
  })

  test('with the embedded database they may be set too', () => {
    const { DATABASE_URL: _, ...env } = onPostgres()
    expect(load(env)).toMatchObject({ adminToken: env.ADMIN_TOKEN, masterKeys: [{ id: 'm1' }] })
  })

  test('of an operator only the digest is kept, and whether it is read-only', () => {
    const [one, two] = [hex(), hex()]
    const digestOf = (secret: string) => createHash('sha256').update(secret).digest()
    expect(load({ OPERATORS: `alice:${one},dashboard:read:${two}` }).operators).toEqual([
      { name: 'alice', readOnly: false, digest: digestOf(one) },
      { name: 'dashboard', readOnly: true, digest: digestOf(two) },
    ])
  })

  test('an operator’s token is accepted if a Bearer header can contain it, and otherwise not', () => {
    const printable = fc.string({
      unit: fc.integer({ min: 33, max: 126 }).map(code => String.fromCharCode(code)),
    })
    fc.assert(
      fc.property(printable, fc.boolean(), (odd, behind) => {
        const token = behind ? `${hex()}${odd}` : `${odd}${hex()}`
        const refused = bearerToken(`Bearer ${token}`) === token ? [] : ['refused']
        expect(problemsOf({ ADMIN_TOKEN: token }).map(() => 'refused')).toEqual(refused)
        if (!token.includes(','))
          expect(problemsOf({ OPERATORS: `bob:read:${token}` }).map(() => 'refused')).toEqual(refused)
      }),
      { numRuns: 1000 },
    )
  })

  test('of a service only the digest is kept', () => {
    const secret = hex()
    const digest = createHash('sha256').update(secret).digest()
    expect(load({ SERVICES: `gateway:introspect+revoke:${secret}` }).services).toEqual([
      { name: 'gateway', may: ['introspect', 'revoke'], digest },
    ])
  })

  test.each<[name: string, write: (text: string) => string]>([
    ['without a line end', text => text],
    ['with a line end', text => `${text}\n`],
    ['with CRLF', text => `${text}\r\n`],
    ['with a byte order mark', text => `\uFEFF${text}\n`],
    ['with a blank last line', text => `${text}\n\n`],
    ['with a byte order mark, CRLF and a last line of spaces', text => `\uFEFF${text}\r\n  \r\n`],
  ])('each can be in a file %s', (_, write) => {
    const values = {
      ...onPostgres(),
      DIRECT_DATABASE_URL: POSTGRES,
      REDIS_URL: 'redis://:p@h',
      OPERATORS: `alice:${hex()}`,
      SERVICES: `api:introspect:${hex()}`,
    }
    const names = Object.keys(values)
    const env = Object.fromEntries(names.map(name => [`${name}_FILE`, `/run/secrets/${name}`]))
    const files = Object.entries(values).map(([name, text]) => [`/run/secrets/${name}`, write(text)])
    const secretFiles = Object.fromEntries(names.map(name => [name, `/run/secrets/${name}`]))
    expect(load(env, Object.fromEntries(files))).toEqual({ ...load(values), secretFiles })
  })

  test('one that is set both directly and in a file is refused', () => {
    const env = { ADMIN_TOKEN: random(), ADMIN_TOKEN_FILE: '/run/token' }
    expect(problemsOf(env, { '/run/token': random() })).toEqual(refusal('ADMIN_TOKEN'))
  })

  test('a file that cannot be read is named, without other details of the setting', () => {
    const problems = problemsOf({ ...onPostgres(), MASTER_KEYS: '', MASTER_KEYS_FILE: '/run/keys' })
    expect(problems).toEqual(refusal('MASTER_KEYS'))
    expect(problems[0]).toMatch(/^MASTER_KEYS_FILE: can't read \/run\/keys \(ENOENT\)/)
  })

  test('an empty file is an error, not an unset secret', () => {
    expect(problemsOf({ ADMIN_TOKEN_FILE: './token' }, { './token': '\n' })).toEqual(refusal('ADMIN_TOKEN'))
  })

  test('a file of the data folder follows the same rules, and is named in the error', () => {
    expect(() => parseMasterKeys('m1:short', './data/master.keys')).toThrow(
      /^\.\/data\/master\.keys, entry 1: /m,
    )
    expect(() => parseAdminToken('short', './data/admin.token')).toThrow(/^\.\/data\/admin\.token: /m)
    const token = random()
    expect(parseAdminToken(token)).toBe(token)
  })
})

describe('H19: weak settings are refused', () => {
  const key = (bytes: number[]) => Buffer.from(bytes).toString('base64')
  const sixteen = secretBytes().subarray(16)
  const bytes = (of: (i: number) => number) => Array.from({ length: 32 }, (_, i) => of(i))

  test.each([
    ['all zero', bytes(() => 0)],
    ['one byte', bytes(() => 0xa7)],
    ['two bytes in turn', bytes(i => (i % 2) * 255)],
    ['seven different bytes', bytes(i => (i * i * i + (i >> 3)) % 7)],
    ['sixteen bytes twice', [...sixteen, ...sixteen]],
    ['counting up', bytes(i => i)],
    ['counting down over zero', bytes(i => (268 - i * 3) & 255)],
  ])('a master key of %s', (_, weak) => {
    expect(problemsOf({ MASTER_KEYS: `m1:${key(weak)}` })).toEqual(refusal('MASTER_KEYS'))
    expect(problemsOf({ MASTER_KEYS: `m2:${random()},m1:${key(weak)}` })[0]).toMatch(
      'MASTER_KEYS, entry 2: is too',
    )
  })

  test.each([
    'a'.repeat(32),
    'secret'.repeat(8),
    'abcdefghijklmnopqrstuvwxyz012345',
    'correct-horse-battery-correct-horse-battery-',
    '0101101001011010010110100101101001011010',
  ])('%s as a token or a secret', weak => {
    expect(problemsOf({ ADMIN_TOKEN: weak })).toEqual(refusal('ADMIN_TOKEN'))
    expect(problemsOf({ OPERATORS: `alice:${weak}` })).toEqual(refusal('OPERATORS'))
    expect(problemsOf({ SERVICES: `api:introspect:${weak}` })).toEqual(refusal('SERVICES'))
  })

  test('a generated secret is never called weak', () => {
    const made = fc.uint8Array({ minLength: 32, maxLength: 32 })
    const seeded = made.map(salt => createHash('sha256').update(salt).digest())
    fc.assert(
      fc.property(seeded, secret => {
        const env = {
          MASTER_KEYS: `m1:${secret.toString('base64')}`,
          ADMIN_TOKEN: secret.reverse().toString('hex'),
        }
        expect(problemsOf(env)).toEqual([])
      }),
      { numRuns: 500 },
    )
  })

  const SAME = secretBytes()
  const OTHER = hex()
  test.each([
    ['two master keys', { MASTER_KEYS: `a:${SAME.toString('base64')},b:${SAME.toString('base64url')}` }],
    ['two operators', { OPERATORS: `a:${OTHER},b:read:${OTHER}` }],
    ['an operator and the token', { OPERATORS: `a:${OTHER}`, ADMIN_TOKEN: OTHER }],
    ['an operator and a service', { OPERATORS: `a:${OTHER}`, SERVICES: `a:issue:${OTHER}` }],
    ['two services', { SERVICES: `a:issue:${OTHER},b:issue:${OTHER}` }],
    [
      'master key and token',
      { MASTER_KEYS: `a:${SAME.toString('base64')}`, ADMIN_TOKEN: SAME.toString('base64') },
    ],
    ['a service and the token', { SERVICES: `a:issue:${OTHER}`, ADMIN_TOKEN: OTHER }],
    [
      'a master key and a service',
      { MASTER_KEYS: `a:${SAME.toString('base64')}`, SERVICES: `a:issue:${SAME.toString('base64url')}` },
    ],
    [
      'the characters of a token as a key',
      { ADMIN_TOKEN: OTHER.slice(32), MASTER_KEYS: `a:${Buffer.from(OTHER.slice(32)).toString('base64')}` },
    ],
  ])('equal secrets: %s', (_, env: Environment) => {
    const problems = problemsOf(env)
    expect(problems).toEqual([expect.stringMatching(/: is the same secret as .+ for example /)])
    // Also beside a malformed setting, so that both can be fixed together.
    expect(problemsOf({ ...env, SIGNUP: 'x' })).toEqual(expect.arrayContaining(problems))
  })
})

test('no message ever repeats a secret, wherever it was set', () => {
  const canary = fc.stringMatching(/^[A-Za-z0-9+_]{12,60}$/)
  const around = fc.constantFrom(
    (s: string) => s,
    (s: string) => `m1:${s}`,
    (s: string) => `${s}:m1`,
    (s: string) => `postgres://u:${s}@h:port/d`,
    (s: string) => `https://u:${s}@h`,
    (s: string) => `a:${s},b:${s},${s}`,
    (s: string) => `${s} `,
  )
  const names = SETTINGS.flatMap(({ name, secret }) => (secret ? [name, `${name}_FILE`] : [name]))
  const env = fc.dictionary(fc.constantFrom(...names), around, { minKeys: 1 })
  fc.assert(
    fc.property(env, canary, fc.boolean(), (wrap, secret, isReadable) => {
      const texts = Object.entries(wrap).map(([name, put]) => [name, put(secret)])
      const readFile = isReadable ? () => `m1:${secret}` : noFile
      try {
        loadConfig(Object.fromEntries(texts), readFile)
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError)
        expect(String((error as Error).stack)).not.toContain(secret)
        expect(JSON.stringify(error)).not.toContain(secret)
      }
    }),
    { numRuns: 2000 },
  )
})

describe('a name that resembles a setting', () => {
  test.each([
    ['ACESS_TOKEN_TTL', 'ACCESS_TOKEN_TTL'],
    ['ACCESS_TOKEN_TLL', 'ACCESS_TOKEN_TTL'],
    ['MAX_ACESS_TOKEN_TLL', 'MAX_ACCESS_TOKEN_TTL'],
    ['MASTER_KEY', 'MASTER_KEYS'],
    ['MASTER_KEY_FILE', 'MASTER_KEYS_FILE'],
    ['DATABSE_URL', 'DATABASE_URL'],
    ['DATABASE_URI', 'DATABASE_URL'],
    ['REDIS-URL', 'REDIS_URL'],
    ['TRUSTED_PROXY', 'TRUST_PROXY'],
    ['WORKER', 'WORKERS'],
    ['PROT', 'PORT'],
    ['HSOT', 'HOST'],
    ['access_token_ttl', 'ACCESS_TOKEN_TTL'],
  ])('for %s the suggestion is %s', (name, meant) => {
    const line = `${name}: is not a setting and is ignored; did you mean ${meant}?`
    expect(describeMisspelt({ [name]: 'canary' })).toEqual([line])
  })

  test.each([
    ...[
      'PATH',
      'HOME',
      'HOSTNAME',
      'USER',
      'SHELL',
      'TERM',
      'LANG',
      'PWD',
      'OLDPWD',
      'SHLVL',
      'TZ',
      'EDITOR',
      '_',
    ],
    ...[
      'NODE_ENV',
      'NODE_OPTIONS',
      'NODE_COMPILE_CACHE',
      'NODE_PATH',
      'UV_THREADPOOL_SIZE',
      'CI',
      'DEBUG',
      'TMPDIR',
    ],
    ...[
      'ASSAY_URL',
      'ASSAY_API_KEY',
      'ASSAY_PORT',
      'ASSAY_SERVICE_HOST',
      'ASSAY_SERVICE_PORT',
      'ASSAY_PORT_3001_TCP',
    ],
    ...[
      'KUBERNETES_PORT',
      'KUBERNETES_SERVICE_HOST',
      'REDIS_PORT',
      'REDIS_HOST',
      'POSTGRES_PORT',
      'DB_HOST',
      'PGHOST',
    ],
    ...[
      'PGPORT',
      'PGDATA',
      'LOGNAME',
      'MAIL',
      'PS1',
      'SSH_TTY',
      'HTTP_PROXY',
      'NO_PROXY',
      'OTEL_SERVICE_NAME',
    ],
    ...['TEST_DATABASE_URL', 'npm_config_cache', 'npm_lifecycle_event', 'INVOCATION_ID', 'JOURNAL_STREAM'],
  ])('%s is not', name => {
    expect(describeMisspelt({ [name]: 'x' })).toEqual([])
  })

  test('is not searched for settings, or for empty variables', () => {
    const names = SETTINGS.flatMap(({ name, secret }) => (secret ? [name, `${name}_FILE`] : [name]))
    expect(describeMisspelt(Object.fromEntries(names.map(name => [name, 'x'])))).toEqual([])
    expect(describeMisspelt({ ACESS_TOKEN_TTL: '' })).toEqual([])
  })

  test('is named if another setting is missing', () => {
    const { MASTER_KEYS, ...env } = onPostgres()
    const problems = problemsOf({ ...env, MASTER_KEY: MASTER_KEYS })
    expect(problems).toEqual([
      expect.stringMatching(/^MASTER_KEYS: /),
      expect.stringMatching(/^MASTER_KEY: .* MASTER_KEYS\?$/),
    ])
    expect(problems.join()).not.toContain(MASTER_KEYS)
  })
})
