import { defineConfig } from 'vitest/config'

/** Every test of the API runs on both databases; `npm test` without a Postgres says what it leaves out. */
const postgresUrl = process.env.TEST_DATABASE_URL

if (!postgresUrl && process.env.CI)
  throw new Error('set TEST_DATABASE_URL to a Postgres on which databases may be made: CI runs every test')
if (!postgresUrl)
  process.stderr.write('TEST_DATABASE_URL is not set: the tests run on the embedded database only\n')

const project = (name: string, include: string[], databaseUrl = '') => ({
  test: {
    name,
    include,
    provide: { databaseUrl },
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})

export default defineConfig({
  test: {
    allowOnly: false,
    projects: [
      project('unit', ['test/*.test.ts', 'test/crypto/*.test.ts']),
      project('embedded', ['test/api/*.test.ts']),
      ...(postgresUrl
        ? [project('postgres', ['test/api/*.test.ts', 'test/postgres/*.test.ts'], postgresUrl)]
        : []),
    ],
    reporters: process.env.CI ? ['default', './test/support/no-skips.ts'] : ['default'],
  },
})

declare module 'vitest' {
  interface ProvidedContext {
    /** Empty: embedded. */
    databaseUrl: string
  }
}
