import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { transactions } from '../../cli/doctor/checks/transactions.ts'
import { open } from '../../db/client.ts'
import { findBinaries, type OwnPostgres, startPostgres } from '../../faults/postgres.ts'
import { changed } from '../support/database.ts'
import { runAssay, runCli, stopAll } from '../support/process.ts'
import { mountSmallDisk } from '../support/small-disk.ts'

/** `assay doctor` on a real Postgres that answers every query and accepts no writes. */

const secrets = {
  MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
  ADMIN_TOKEN: randomBytes(32).toString('hex'),
}

describe.skipIf(!findBinaries())('a database that answers', () => {
  let server: OwnPostgres
  beforeAll(async () => {
    server = await startPostgres({ settings: ['max_prepared_transactions = 1'] })
    expect((await runAssay({ ...secrets, DATABASE_URL: server.url }, ['migrate'])).code).toBe(0)
  })
  afterAll(async () => {
    await stopAll()
    await server?.stop()
  })

  async function examine(settings: Record<string, string> = {}) {
    const args = ['doctor', '--offline', '--json']
    const { code, stdout } = await runCli({ ...secrets, DATABASE_URL: server.url, ...settings }, args)
    const findings: { check: string; state: string }[] = JSON.parse(stdout)
    return { code, wrong: findings.filter(({ state }) => state === 'wrong') }
  }

  const set = async (name: string, value: string) => {
    await server.ask(`alter system set ${name} = ${value}`)
    await server.ask('select pg_reload_conf()')
  }

  test('and accepts writes is ok', async () => {
    expect(await examine()).toEqual({ code: 0, wrong: [] })
  })

  test('and is read-only is a failure, at either URL', async () => {
    await server.ask('create database reader')
    await server.ask('alter database reader set default_transaction_read_only = on')
    expect(await examine({ DATABASE_URL: changed(server.url, { pathname: '/reader' }) })).toEqual({
      code: 1,
      wrong: [
        expect.objectContaining({ check: 'database', found: expect.stringMatching(/^it is read-only/) }),
      ],
    })
    const readOnly = `${server.url}?options=-c%20default_transaction_read_only%3Don`
    expect(await examine({ DIRECT_DATABASE_URL: readOnly })).toEqual({
      code: 1,
      wrong: [
        expect.objectContaining({
          found: expect.stringMatching(/^DIRECT_DATABASE_URL: its sessions are read-only/),
          remedy: 'turn off default_transaction_read_only',
        }),
      ],
    })
  })

  test('and has a full disk is a failure until there is space', async () => {
    const disk = mountSmallDisk(64, server.owner)
    await server.ask(`create tablespace small location '${disk.folder}'`)
    await server.ask('create database small tablespace small')
    const DATABASE_URL = changed(server.url, { pathname: '/small' })
    expect((await runAssay({ ...secrets, DATABASE_URL }, ['migrate'])).code).toBe(0)
    disk.fill()
    expect(await examine({ DATABASE_URL })).toEqual({
      code: 1,
      wrong: [
        expect.objectContaining({ check: 'database disk', found: expect.stringMatching(/disk is full/) }),
      ],
    })
    disk.makeRoom()
    expect(await examine({ DATABASE_URL })).toEqual({ code: 0, wrong: [] })
    await server.ask('drop database small')
    await server.ask('drop tablespace small')
  })

  test('and waits for a missing standby is a failure, with the reason', async () => {
    await set('synchronous_standby_names', `'nobody'`)
    expect(await examine()).toEqual({
      code: 1,
      wrong: [
        expect.objectContaining({
          check: 'commits',
          found: expect.stringMatching(/^a commit did not finish within 5 s: .*SyncRep.*'nobody'/),
          remedy: expect.stringMatching(/^bring the standby back/),
        }),
      ],
    })
    const waiting = `select count(*)::int as n from pg_stat_activity where wait_event = 'SyncRep'`
    await expect.poll(() => server.ask(waiting)).toBe('0')
    await set('synchronous_standby_names', `''`)
    expect(await examine()).toEqual({ code: 0, wrong: [] })
  })

  /** The findings of the check about transactions of any age, as the role of `url`. */
  async function findTransaction(url = server.url) {
    const db = await open({ url })
    onTestFinished(() => db.close())
    return transactions(db, 0)
  }

  /** A transaction with a snapshot and its own role, which stays open until the test ends. */
  async function openTransaction() {
    await server.ask(`create role application login password 'secret'`)
    const url = changed(server.url, { username: 'application', password: 'secret' })
    const sql = postgres(`${url}?application_name=nightly`, { max: 1 })
    const line = await sql.reserve()
    await line`begin isolation level repeatable read`
    const [row] = await line`select pg_backend_pid() as pid`
    onTestFinished(async () => {
      line.release()
      await sql.end({ timeout: 0 })
      await server.ask('drop role application')
    })
    return row!.pid as number
  }

  test('and keeps dead rows for an open transaction gets a warning with the process and its role', async () => {
    const pid = await openTransaction()
    expect(await findTransaction()).toEqual({
      state: 'warning',
      found: `process ${pid} (application, nightly) has had a transaction open for 0 min (idle in transaction), so no dead row can be removed`,
      remedy: expect.stringContaining(`select pg_terminate_backend(${pid})`),
    })
  })

  test('and keeps them for a prepared transaction gets a warning with its name', async () => {
    await server.ask(`begin; select txid_current(); prepare transaction 'forgotten'`)
    const found = await findTransaction()
    await server.ask(`rollback prepared 'forgotten'`)
    expect(found).toMatchObject({
      state: 'warning',
      found: expect.stringMatching(
        /^the prepared transaction 'forgotten' of postgres has been open for 0 min/,
      ),
    })
  })

  test('and a role that sees no other sessions is told which privilege it lacks', async () => {
    await openTransaction()
    await server.ask(`create role blind login password 'secret'`)
    const found = await findTransaction(changed(server.url, { username: 'blind', password: 'secret' }))
    expect(found).toEqual({
      state: 'ok',
      found:
        'none is older than 0 min, as far as blind can see; to see those of other roles, grant pg_read_all_stats to blind',
    })
  })

  test('and has fsync off gets only a warning, because some platforms offer nothing else', async () => {
    await set('fsync', 'off')
    const { stdout, code } = await runCli({ ...secrets, DATABASE_URL: server.url }, ['doctor', '--offline'])
    expect(stdout).toMatch(/^WARNING {2}database settings: fsync off: a crash can lose.*\n.*Neon, Aurora/m)
    expect(code).toBe(0)
    await set('fsync', 'on')
  })
})
