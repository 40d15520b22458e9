import { defineConfig } from 'vitest/config'

/** Every test of the API runs on both databases; `npm test` without a Postgres says what it leaves out. */
const postgresUrl = process.env.TEST_DATABASE_URL
/** Those of Redis need both. */
const redisUrl = process.env.TEST_REDIS_URL

if (!redisUrl && process.env.CI) throw new Error('set TEST_REDIS_URL to a Redis: CI runs every test')
if (!postgresUrl && process.env.CI)
  throw new Error('set TEST_DATABASE_URL to a Postgres on which databases may be made: CI runs every test')
if (!postgresUrl)
  process.stderr.write('TEST_DATABASE_URL is not set: the tests run on the embedded database only\n')
else if (!redisUrl) process.stderr.write('TEST_REDIS_URL is not set: the tests of Redis are left out\n')

const project = (name: string, include: string[], databaseUrl = '') => ({
  test: {
    name,
    include,
    provide: { databaseUrl, redisUrl: redisUrl ?? '' },
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})

const onPostgres = [
  'test/api/*.test.ts',
  'test/postgres/*.test.ts',
  ...(redisUrl ? ['test/redis/*.test.ts'] : []),
]

export default defineConfig({
  test: {
    allowOnly: false,
    projects: [
      project('unit', ['test/*.test.ts', 'test/crypto/*.test.ts']),
      project('embedded', ['test/api/*.test.ts']),
      ...(postgresUrl ? [project('postgres', onPostgres, postgresUrl)] : []),
    ],
    reporters: process.env.CI ? ['default', './test/support/no-skips.ts'] : ['default'],
  },
})

declare module 'vitest' {
  interface ProvidedContext {
    /** Empty: embedded. */
    databaseUrl: string
    /** Empty: none. */
    redisUrl: string
  }
}
