import { until } from '../test/support/process.ts'
import { everyReplica, failedPolls, fault, type Seen } from './fault.ts'
import { type OwnPostgres, startStandby } from './postgres.ts'
import { N, type Stage } from './stage.ts'

/** Faults in which another server takes over: a synchronous standby, which has everything that was ever acknowledged. */

/** The replica whose old connections stay with the old primary, if that is still running. */
const VICTIM = 1

const startedOver = ({ before, recovered }: Seen, replica: number) =>
  recovered[replica]!.reloads > before[replica]!.reloads

/** New connections go to this server from now on. */
export function leadTo(stage: Stage, server: OwnPostgres) {
  const url = new URL(stage.url)
  url.port = new URL(server.url).port
  Object.assign(stage, { server, url: url.href })
  for (const { link } of stage.replicas) link.leadTo(stage.url)
}

export const failoverFaults = [
  fault({
    name: 'a standby promoted',
    ownServer: true,
    lasts: 500,
    async inject(stage) {
      const standby = await startStandby(stage.server!)
      await stage.server!.destroy()
      return standby
    },
    async heal(stage, standby) {
      await standby.promote()
      leadTo(stage, standby)
    },
    felt: seen =>
      everyReplica(seen, (seen, replica) => failedPolls(seen, replica) > 0 && startedOver(seen, replica)),
  }),
  fault({
    name: 'a standby promoted, the old primary lives on',
    ownServer: true,
    lasts: 3 * N,
    async inject(stage) {
      const old = stage.server!
      const standby = await startStandby(old)
      await connectAnew(stage)
      await standby.promote()
      leadTo(stage, standby)
      for (const { link } of stage.replicas.filter((_, replica) => replica !== VICTIM)) link.resetAll()
      await until(
        'the victim writes to the old primary',
        async () => (await old.ask(WAITING)) === 't',
        10_000,
      )
      return old
    },
    heal: (_, old) => old.destroy(),
    // The old primary still ran, so the victim had to detect the failover itself: its poll timed out there, then its pool
    // reconnected.
    felt: seen => failedPolls(seen, VICTIM) > 0 && everyReplica(seen, startedOver),
  }),
]

/** Opens connections in the victim's pool, some of which will read. */
async function connectAnew({ replicas, apiKey }: Stage) {
  const issue = () =>
    fetch(`${replicas[VICTIM]!.process.url}/issue`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/json' },
      body: '{}',
    })
  await Promise.all(Array.from({ length: 4 }, issue))
}

/** True if a write waits for a standby that is gone. */
const WAITING = `select coalesce(bool_or(wait_event = 'SyncRep'), false)
  from pg_stat_activity where application_name = 'assay'`
