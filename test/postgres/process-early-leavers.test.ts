import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll } from 'vitest'
import { control, direct } from '../support/database.ts'
import { earlyLeavers } from '../support/early-leavers.ts'
import { copyDatabase } from '../support/templates.ts'

/** Clients that disconnect early, from a server with two workers on Postgres. The embedded one has none. */

let database: Awaited<ReturnType<typeof copyDatabase>>

beforeAll(async () => {
  database = await copyDatabase()
})
afterAll(() => database.drop())

const MASTER_KEYS = `m1:${randomBytes(32).toString('base64')}`

earlyLeavers(
  () => ({
    DATABASE_URL: database.url,
    DIRECT_DATABASE_URL: direct(database.url),
    MASTER_KEYS,
    WORKERS: '2',
  }),
  async () => {
    const sql = control(database.url)
    await sql`
      insert into assay.audit_events (at, customer_id, type, actor, user_agent)
      select assay.now() - n * interval '1 second', null, 'token.issued', 'api_key:x', repeat('x', 256)
      from generate_series(1, 4000) as n`
    await sql.end()
  },
)
