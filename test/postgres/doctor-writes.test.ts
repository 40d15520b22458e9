import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findBinaries, type OwnPostgres, startPostgres } from '../../faults/postgres.ts'
import { changed } from '../support/database.ts'
import { runAssay, runCli, stopAll } from '../support/process.ts'
import { mountSmallDisk } from '../support/small-disk.ts'

/** `assay doctor` on a real Postgres that answers every question and takes no write. */

const secrets = {
  MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
  ADMIN_TOKEN: randomBytes(32).toString('hex'),
}

describe.skipIf(!findBinaries())('a database that answers', () => {
  let server: OwnPostgres
  beforeAll(async () => {
    server = await startPostgres()
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

  test('and takes writes is right', async () => {
    expect(await examine()).toEqual({ code: 0, wrong: [] })
  })

  test('and only reads is wrong, at either URL', async () => {
    await server.ask('create database reader')
    await server.ask('alter database reader set default_transaction_read_only = on')
    expect(await examine({ DATABASE_URL: changed(server.url, { pathname: '/reader' }) })).toEqual({
      code: 1,
      wrong: [expect.objectContaining({ check: 'database', found: expect.stringMatching(/^it only reads/) })],
    })
    const readOnly = `${server.url}?options=-c%20default_transaction_read_only%3Don`
    expect(await examine({ DIRECT_DATABASE_URL: readOnly })).toEqual({
      code: 1,
      wrong: [
        expect.objectContaining({
          found: expect.stringMatching(/^DIRECT_DATABASE_URL: its sessions only read/),
          remedy: 'let them write',
        }),
      ],
    })
  })

  test('and has a full disk is wrong until there is room', async () => {
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

  test('and waits for a standby that is gone is wrong, with the reason', async () => {
    await set('synchronous_standby_names', `'nobody'`)
    expect(await examine()).toEqual({
      code: 1,
      wrong: [
        expect.objectContaining({
          check: 'commits',
          found: expect.stringMatching(/^a commit did not end within 5 s: .*SyncRep.*'nobody'/),
          remedy: expect.stringMatching(/^bring the standby back/),
        }),
      ],
    })
    await set('synchronous_standby_names', `''`)
    expect(await examine()).toEqual({ code: 0, wrong: [] })
  })

  test('and has fsync off is only warned of: some platforms have nothing else', async () => {
    await set('fsync', 'off')
    const { stdout, code } = await runCli({ ...secrets, DATABASE_URL: server.url }, ['doctor', '--offline'])
    expect(stdout).toMatch(/^WARNING {2}database settings: fsync off: a crash loses.*\n.*Neon, Aurora/m)
    expect(code).toBe(0)
    await set('fsync', 'on')
  })
})
