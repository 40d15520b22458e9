import { defineConfig } from 'vitest/config'
import type { Templates } from './test/support/database.ts'
import { LongestFirst } from './test/support/longest-first.ts'

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

const onPostgres = [
  'test/api/*.test.ts',
  'test/postgres/*.test.ts',
  ...(redisUrl ? ['test/redis/*.test.ts'] : []),
]

/** These measure how soon something happens, so they run one at a time, after the others. */
const TIMED = {
  unit: ['test/process-drain.test.ts', 'test/process-sockets.test.ts'],
  embedded: ['test/api/flood.test.ts', 'test/api/lease.test.ts'],
  postgres: [
    'test/api/flood.test.ts',
    'test/api/lease.test.ts',
    'test/postgres/faults.test.ts',
    'test/postgres/faults-server.test.ts',
    'test/postgres/outage.test.ts',
    'test/postgres/poll-proof.test.ts',
    'test/postgres/pool.test.ts',
    ...(redisUrl ? ['test/redis/faults.test.ts'] : []),
  ],
}

/** Where random trials begin. Another repeats or widens a run. */
const seed = Number(process.env.HAZARDS_SEED ?? 32)

/** `npm run hazards` is the long run. Most of what it repeats are races: where Postgres is at hand it runs on that alone. */
export default defineConfig(({ mode }) => {
  const longRun = mode === 'hazards'
  const project = (name: string, include: string[], databaseUrl = '', more = {}) => ({
    test: {
      name,
      include,
      ...more,
      // In one process, the files of a project share what they import, and PGlite's compiled code.
      isolate: false,
      ...(databaseUrl && { globalSetup: './test/support/prepare-postgres.ts' }),
      provide: { databaseUrl, redisUrl: redisUrl ?? '', longRun, seed },
      // On a busy machine every step takes several times as long. These only end what hangs.
      testTimeout: longRun ? 3_600_000 : 300_000,
      hookTimeout: 300_000,
      expect: { poll: { timeout: 60_000 } },
    },
  })
  const projects = (name: keyof typeof TIMED, include: string[], databaseUrl = '') => [
    project(name, include, databaseUrl, { exclude: TIMED[name] }),
    project(`${name}-timed`, TIMED[name], databaseUrl, { maxWorkers: 1, sequence: { groupOrder: 1 } }),
  ]
  if (longRun) process.stderr.write(`the long run of the hazards, seed ${seed} (HAZARDS_SEED sets another)\n`)
  return {
    test: {
      allowOnly: false,
      // Most tests wait for processes and clocks, so three files at a time keep two cores busy. The default is one on two cores.
      maxWorkers: longRun ? 1 : 3,
      sequence: { sequencer: LongestFirst },
      globalSetup: './test/support/prepare-embedded.ts',
      projects: [
        ...projects('unit', ['test/*.test.ts', 'test/crypto/*.test.ts']),
        ...(longRun && postgresUrl ? [] : projects('embedded', ['test/api/*.test.ts'])),
        ...(postgresUrl ? projects('postgres', onPostgres, postgresUrl) : []),
      ],
      reporters: process.env.CI && !longRun ? ['default', './test/support/no-skips.ts'] : ['default'],
    },
  }
})

declare module 'vitest' {
  interface ProvidedContext extends Templates {
    /** Empty: embedded. */
    databaseUrl: string
    /** Empty: none. */
    redisUrl: string
    longRun: boolean
    seed: number
  }
}
