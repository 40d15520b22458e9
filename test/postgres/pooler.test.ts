import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest'
import { open } from '../../db/client.ts'
import { inspect } from '../../db/server-info.ts'
import { direct } from '../support/database.ts'
import { startPgbouncer } from '../support/pgbouncer.ts'
import { logLines, runAssay, startAssay, stopAll, until } from '../support/process.ts'
import { findProgram } from '../support/program.ts'
import { copyDatabase } from '../support/templates.ts'

/** Through a real pgbouncer in transaction mode. The whole suite runs through it too: npm run test:pooler (H27). */

const present = findProgram('pgbouncer') !== undefined
let pgbouncer: Awaited<ReturnType<typeof startPgbouncer>>
let url: string
let drop: () => Promise<void>

beforeAll(async () => {
  const made = await copyDatabase()
  url = direct(made.url)
  drop = made.drop
  await administer(`alter database ${database()} set statement_timeout = '4500ms'`)
  if (present) pgbouncer = await startPgbouncer(inject('databaseUrl'))
})
afterEach(() => stopAll())
afterAll(async () => {
  await pgbouncer?.stop()
  await drop()
})

const settings = (more: Record<string, string> = {}) => ({
  DATABASE_URL: pgbouncer.through(url),
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  ...more,
})

const database = () => new URL(url).pathname.slice(1)

test.skipIf(!present)(
  'H27 a pooler is detected, and the server behind it is recognized as the same database',
  async () => {
    const [pooled, direct] = [await inspect(pgbouncer.through(url)), await inspect(url)]
    const { identity } = direct
    expect(pooled).toMatchObject({ identity, standby: false, pooled: true, unfit: [] })
    expect(direct).toMatchObject({ identity, standby: false, pooled: false, unfit: [] })
  },
)

test.skipIf(!present)(
  'H27 the server starts through it, and logs that notifications do not arrive',
  async () => {
    const assay = await startAssay(settings())
    await until('it has found out', () => logLines(assay).some(({ msg }) => /DIRECT_DATABASE_URL/.test(msg)))
    expect((await fetch(`${assay.url}/readyz`)).status).toBe(200)
  },
)

test.skipIf(!present)('H27 with a DIRECT_DATABASE_URL that bypasses it they do', async () => {
  const assay = await startAssay(settings({ DIRECT_DATABASE_URL: url }))
  const listening = `select 1 from pg_stat_activity where datname = '${database()}' and query = 'listen assay_changes'`
  const db = await open({ url })
  await until('it listens', async () => (await db.query(listening)).length === 1)
  await db.close()
  expect(logLines(assay).filter(({ level }) => level > 30)).toEqual([])
})

describe.skipIf(!present)('refused at start, with the fix', () => {
  test('DIRECT_DATABASE_URL leads to another database', async () => {
    const other = await copyDatabase()
    const { code, stderr } = await runAssay(settings({ DIRECT_DATABASE_URL: direct(other.url) }))
    await other.drop()
    expect(code).toBe(78)
    expect(stderr).toContain(
      'DIRECT_DATABASE_URL: points to another database than DATABASE_URL; use the same database without the pooler',
    )
  })

  test.each([
    ['synchronous_commit', 'off', 'on'],
    ['default_transaction_isolation', 'serializable', 'read committed'],
    ['DateStyle', 'SQL, DMY', 'ISO, MDY'],
    ['statement_timeout', '0', '4500ms'],
    ['statement_timeout', '6000', '4500ms'],
  ])('behind the pooler %s is %s', async (name, value, needed) => {
    const made = await copyDatabase()
    await administer(`alter database ${new URL(made.url).pathname.slice(1)} set ${name} = '${value}'`)
    const { code, stderr } = await runAssay(settings({ DATABASE_URL: pgbouncer.through(made.url) }))
    await made.drop()
    expect(code).toBe(78)
    expect(stderr).toContain(`alter database NAME set ${name} = '${needed}'`)
  })

  test('without a pooler such a setting has no effect: Assay sets its own', async () => {
    const made = await copyDatabase()
    await administer(`alter database ${new URL(made.url).pathname.slice(1)} set synchronous_commit = 'off'`)
    const assay = await startAssay(settings({ DATABASE_URL: direct(made.url) }))
    expect(await assay.stop('SIGINT')).toBe(0)
    const told = logLines(assay).filter(({ level }) => level > 30)
    expect(told.map(({ msg }) => msg)).toEqual([expect.stringContaining('a new installation was created')])
    await made.drop()
  })
})

async function administer(statement: string) {
  const db = await open({ url: inject('databaseUrl') })
  await db.query(statement)
  await db.close()
}
