import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { findBinaries, type OwnPostgres, startPostgres, startStandby } from '../../faults/postgres.ts'
import { leadTo } from '../../faults/rows-failover.ts'
import { countAt, makeStage, type Stage } from '../../faults/stage.ts'
import { ask } from '../support/calls.ts'
import { stopAll, until } from '../support/process.ts'

/** Tests the log about a promoted standby that has every commit, and about one that doesn't. */

afterEach(stopAll)

const reloads = ({ replicas: [first] }: Stage, reason: string) =>
  countAt(first, `assay_change_feed_reloads_total{reason="${reason}"}`)

/** The log lines about reloads. */
const reloadLines = ({ replicas: [first] }: Stage) =>
  first.process
    .stdout()
    .split('\n')
    .filter(line => line.includes('"newTimeline"'))
    .map(line => JSON.parse(line))

async function revokeOne({ replicas: [{ process }], apiKey: token }: Stage) {
  const { access_token } = (await ask(process, '/issue', { json: {}, token })).json
  const { status } = await ask(process, '/revoke', { form: { token: access_token }, token })
  expect(status).toBe(200)
}

/** Revokes a token, and waits until a poll has returned that. A loss is also found by the last change that a poll returned. */
async function revokeAndPoll(stage: Stage) {
  const polled = () => countAt(stage.replicas[0], 'assay_change_feed_rows_total')
  const before = await polled()
  await revokeOne(stage)
  await until('a poll has returned it', async () => (await polled()) > before)
}

/** From here on the primary commits without the standby, which gets no more writes. */
async function separate(primary: OwnPostgres, standby: OwnPostgres) {
  await primary.ask('alter system reset synchronous_standby_names')
  await primary.ask('select pg_reload_conf()')
  await standby.ask(`alter system set primary_conninfo = ''`)
  await standby.ask('select pg_reload_conf()')
  const connected = () => primary.ask('select count(*) from pg_stat_replication')
  await until('the standby is separate', async () => (await connected()) === '0')
}

async function stageWithStandby() {
  const server = await startPostgres()
  const stage = await makeStage({ serverUrl: server.url, server, replicas: 1 })
  const standby = await startStandby(server)
  onTestFinished(async () => {
    await stage.stop()
    await stage.server!.stop()
  })
  return { stage, server, standby }
}

async function promote(stage: Stage, standby: OwnPostgres, meanwhile = async () => '') {
  await stage.server!.destroy()
  await standby.promote()
  await meanwhile()
  leadTo(stage, standby)
  for (const { link } of stage.replicas) link.resetAll()
  await until('it has reloaded', async () => reloadLines(stage).length > 0)
}

/** Servers start slowly on a busy machine (ms). */
const TIMEOUT_MS = 180_000

describe.skipIf(!findBinaries())('servers of our own (skipped where Postgres has no binaries here)', () => {
  test(
    'a standby that has every commit is promoted: a warning with both timelines',
    async () => {
      const { stage, standby } = await stageWithStandby()
      for (let i = 0; i < 3; i++) await revokeOne(stage)
      await promote(stage, standby)
      expect(reloadLines(stage)).toMatchObject([{ level: 40, reason: 'timeline' }])
      const [{ oldTimeline, newTimeline }] = reloadLines(stage)
      expect([oldTimeline, newTimeline]).toEqual([
        expect.stringMatching(/^[\d/]+\/00000001\/[\d.]+$/),
        expect.stringMatching(/^[\d/]+\/00000002\/[\d.]+$/),
      ])
      expect([await reloads(stage, 'timeline'), await reloads(stage, 'commits_lost')]).toEqual([1, 0])
    },
    TIMEOUT_MS,
  )

  test(
    'a standby that lacks revocations is promoted: an error with the number of lost ones',
    async () => {
      const { stage, server, standby } = await stageWithStandby()
      await revokeOne(stage)
      await separate(server, standby)
      for (let i = 0; i < 3; i++) await revokeOne(stage)
      await promote(stage, standby)
      const [line] = reloadLines(stage)
      expect(line).toMatchObject({ level: 50, reason: 'commits_lost', lost: 3, found: line.committed - 3 })
      expect(line.msg).toContain(
        `up to number ${line.committed} were committed, but the database now has only those up to ${line.found}`,
      )
      expect([await reloads(stage, 'timeline'), await reloads(stage, 'commits_lost')]).toEqual([0, 1])
    },
    TIMEOUT_MS,
  )

  test(
    'a standby that lacks revocations has reused their numbers before any replica polled: an error with the number',
    async () => {
      const { stage, server, standby } = await stageWithStandby()
      await revokeAndPoll(stage)
      await separate(server, standby)
      for (let i = 0; i < 2; i++) await revokeAndPoll(stage)
      // Writes of another replica that come first.
      const others = `with pushed as (update assay.change_feed set seq = seq + 3 returning seq)
        insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
        select seq - n, 'token', 'c', 'other ' || n, 0, now() + interval '1 hour' from pushed, generate_series(0, 2) as n`
      await promote(stage, standby, () => standby.ask(others, new URL(stage.url).pathname.slice(1)))
      await until('the loss is counted', async () => (await reloads(stage, 'commits_lost')) === 1)
      expect(reloadLines(stage)).toMatchObject([{ reason: 'timeline' }])
      const lines = stage.replicas[0].process.stdout().split('\n')
      const [loss] = lines.filter(line => line.includes('"commits_lost"')).map(line => JSON.parse(line))
      expect(loss).toMatchObject({ level: 50, number: expect.any(Number) })
    },
    TIMEOUT_MS,
  )
})
