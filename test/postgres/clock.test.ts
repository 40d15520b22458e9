import { chmodSync, globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { deleteDead } from '../../db/queries/maintenance.ts'
import { findBinaries, type OwnPostgres, startPostgres } from '../../faults/postgres.ts'
import { loadKeyRing } from '../../server/keys/master-keys.ts'
import { ask, issue, signUp, verify } from '../support/calls.ts'
import { createDatabase } from '../support/database.ts'
import { hear, linkTo, replicaOn } from '../support/holding.ts'
import { logLines, type Running, runCli, startAssay, stopAll, until } from '../support/process.ts'
import { type Answer, bearer, configOf } from '../support/world.ts'

/** A real Postgres on a machine whose clock is wrong for some time and then right. */

const HOUR_SECONDS = 3_600
const [library] = globSync('/usr/lib/*/faketime/libfaketime.so.1')
const present = findBinaries() !== undefined && library !== undefined

const folder = mkdtempSync(join(tmpdir(), 'assay-clock-'))
const timeFile = join(folder, 'time')
/** By how much the clock of its machine is ahead. */
const setClock = (seconds: number) => writeFileSync(timeFile, `+${seconds}s`)

let server: OwnPostgres
let url: string

beforeAll(async () => {
  if (!present) return
  chmodSync(folder, 0o755)
  setClock(0)
  server = await startPostgres({
    env: {
      LD_PRELOAD: library!,
      FAKETIME_TIMESTAMP_FILE: timeFile,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    },
  })
  url = (await createDatabase(server.url)).url
})
afterEach(async () => {
  await stopAll()
  if (present) setClock(0)
})
afterAll(async () => {
  await server?.stop()
  rmSync(folder, { recursive: true })
})

const secrets = {
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  ISSUER: 'http://assay.test',
}

/** A customer, and one of its tokens that was revoked. */
async function revokedToken(request: (path: string, init?: RequestInit) => Promise<Answer>) {
  const post = (path: string, body: object, token?: string) =>
    request(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(token && bearer(token)) },
      body: JSON.stringify(body),
    })
  const account = { email: `${crypto.randomUUID()}@example.com`, password: 'correct horse battery staple' }
  const { api_key } = (await post('/api/auth/signup', account)).json
  const { access_token: token } = (await post('/issue', {}, api_key)).json
  const form = new URLSearchParams({ token })
  const revoked = await request('/revoke', { method: 'POST', headers: bearer(api_key), body: form })
  expect(revoked.status).toBe(200)
  return token as string
}

describe.skipIf(!present)('a database whose clock jumps (skipped where libfaketime is not installed)', () => {
  test('for some rounds of maintenance makes no revoked token valid again, on any replica', async () => {
    const db = await linkTo(url)
    const config = configOf(secrets)
    const parts = { config, keyRing: await loadKeyRing(db, config.masterKeys as never) }
    const replicas = [await replicaOn(parts, db), await replicaOn(parts, await linkTo(url))]
    const rounds = async () => {
      await hear(...replicas)
      for (let round = 0; round < 2; round++) for (const { maintenance } of replicas) await maintenance.run()
    }
    const token = await revokedToken(replicas[0]!.request)
    await rounds()
    setClock(2 * HOUR_SECONDS)
    await rounds()
    expect(await db.query('select from assay.revocations where kind = $1', ['token'])).toHaveLength(1)
    setClock(0)
    await rounds()
    const started = await replicaOn(parts, db)
    for (const { verify } of [...replicas, started]) expect((await verify(token)).status).toBe(401)
    expect(replicas[0]!.changeFeed.now()).toBeLessThan(Date.now() + 60_000)
  })

  test('while its server restarts holds deletion until an operator confirms it', async () => {
    const settings = { ...secrets, DATABASE_URL: url }
    const heldAt = async ({ url }: Running) => {
      const answer = await fetch(`${url}/metrics`, { headers: bearer(secrets.ADMIN_TOKEN) })
      return /^assay_clock_held (\d)/m.exec(await answer.text())?.[1]
    }
    const first = await startAssay(settings)
    const { apiKey } = await signUp(first)
    const { access_token: token } = await issue(first, apiKey, 'user-1')
    await ask(first, '/revoke', { form: { token }, token: apiKey })
    await first.stop()
    setClock(3 * HOUR_SECONDS)
    const second = await startAssay(settings)
    await until('it has looked at the clock', async () => (await heldAt(second)) === '1')
    const [line] = logLines(second).filter(({ msg }) => msg.includes('clock jumped'))
    expect(line).toMatchObject({ level: 50, msg: expect.stringContaining('assay clock confirm') })
    expect(Math.abs(line.seconds - 3 * HOUR_SECONDS)).toBeLessThan(60)
    const db = await linkTo(url)
    expect(await deleteDead(db, 'revocations')).toBe(0)
    setClock(0)
    await until('it has heard that', async () => (await verify(second, token)) === 401)
    setClock(3 * HOUR_SECONDS)
    const cli = { ASSAY_URL: second.url, ADMIN_TOKEN: secrets.ADMIN_TOKEN }
    expect(await runCli(cli, ['clock', 'confirm'])).toMatchObject({ code: 64 })
    expect(await runCli(cli, ['clock', 'confirm', '--yes'])).toMatchObject({ code: 0 })
    expect(await heldAt(second)).toBe('0')
    expect(await deleteDead(db, 'revocations')).toBeGreaterThan(0)
  })
})
