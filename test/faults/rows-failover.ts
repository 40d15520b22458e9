import { cutOff, everyReplica, failedPolls, fault, type Seen } from './fault.ts'
import { type OwnPostgres, startStandby } from './postgres.ts'
import { N, type Stage } from './stage.ts'

/** Faults in which another server takes over: a synchronous standby, which has all that was ever acknowledged. */

/** Whose old connections stay with the old primary, where that lives on. */
const VICTIM = 1

const startedOver = ({ before, recovered }: Seen, replica: number) =>
  recovered[replica]!.reloads > before[replica]!.reloads

/** From now on whoever connects finds this one. */
function leadTo(stage: Stage, server: OwnPostgres) {
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
      return { old, found: '' }
    },
    async heal(_, mark) {
      mark.found = await mark.old.ask(STRANDED)
      await mark.old.destroy()
    },
    // The victim's bus has moved, its pool has not: it reads from the old primary, and what it reads is refused.
    felt: (seen, { found }) => found === 't' && cutOff(seen, VICTIM) && everyReplica(seen, startedOver),
  }),
]

/** The victim's pool has connections then, of which some will read. */
async function connectAnew({ replicas, apiKey }: Stage) {
  const issue = () =>
    fetch(`${replicas[VICTIM]!.process.url}/issue`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/json' },
      body: '{}',
    })
  await Promise.all(Array.from({ length: 4 }, issue))
}

/** Whether the old primary let some wait for a standby that is gone, and answered others, within the last second. */
const STRANDED = `select bool_or(wait_event = 'SyncRep')
  and bool_or(query like '%from (select) as always%' and clock_timestamp() - query_start < interval '1 second')
  from pg_stat_activity where application_name = 'assay'`
