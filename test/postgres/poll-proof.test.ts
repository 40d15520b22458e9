import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { open } from '../../db/client.ts'
import { migratePostgres } from '../../db/migrate.ts'
import { poll } from '../../db/queries/change-feed.ts'
import { findBinaries, type OwnPostgres, startPostgres } from '../../faults/postgres.ts'
import { until } from '../support/process.ts'

/** A poll proves that the database accepts commits, whether it writes the replica's row or only locks it. */

describe.skipIf(!findBinaries())('a poll', () => {
  let server: OwnPostgres
  beforeAll(async () => {
    server = await startPostgres()
    await migratePostgres(server.url)
  })
  afterAll(() => server?.stop())

  async function poller() {
    const db = await open({ url: server.url })
    const connection = db.connection(500)
    onTestFinished(async () => {
      await connection.close()
      await db.close()
    })
    return async (write: boolean) => {
      const of = { replica: 'poller', version: '0', applied: 0, maxStaleness: 5_000, write }
      return (await poll(connection, of))[0]!.written
    }
  }

  /** Resolves when the server has reloaded its settings: processes that it starts afterwards have the new ones. */
  const set = async (statement: string) => {
    const loadedAt = () => server.ask('select pg_conf_load_time()')
    const before = await loadedAt()
    await server.ask(statement)
    await server.ask('select pg_reload_conf()')
    await until('the settings are loaded', async () => (await loadedAt()) !== before)
  }

  const detailOf = (poll: Promise<boolean>) => poll.then(String, ({ detail }) => detail)

  test('reports whether it wrote the row: the first always does', async () => {
    const ask = await poller()
    expect([await ask(false), await ask(false), await ask(true)]).toEqual([true, false, true])
  })

  test.each([true, false])('has no answer while a required standby is missing (write: %s)', async write => {
    const ask = await poller()
    await ask(true)
    await set(`alter system set synchronous_standby_names = 'nobody'`)
    // The checkpointer may tell the backends later than new sessions see the setting.
    await expect.poll(() => detailOf(ask(write))).toBe('database: no answer within 500 ms')
    await set('alter system reset synchronous_standby_names')
    expect(await ask(write)).toBe(write)
  })

  test.each([true, false])('has no answer from a read-only database (write: %s)', async write => {
    await (await poller())(true)
    await set('alter system set default_transaction_read_only = on')
    const ask = await poller()
    await expect(ask(write)).rejects.toMatchObject({ detail: 'database: 25006' })
    await set('alter system reset default_transaction_read_only')
  })
})
