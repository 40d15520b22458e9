import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/process.ts'
import { cutOff, everyReplica, type Fault, failedPolls, fault, type Seen } from '../fault.ts'
import { FAILOVER_DEADLINE_MS, type PatroniCluster } from './cluster.ts'
import type { Member } from './member.ts'

/** Time for a resumed primary to act on its outdated state before the drill continues (ms). */
const ZOMBIE_MS = 4_000
/** Longer than wal_sender_timeout, after which Patroni makes another standby the synchronous one (ms). */
const HUNG_MS = 8_000
/** Time without a leader, in addition to the time until the demotion (ms). */
const WITHOUT_ETCD_MS = 3_000

const startedOver = ({ before, recovered }: Seen, replica: number) =>
  recovered[replica]!.reloads > before[replica]!.reloads

/** Faults of a Patroni cluster. Each ends when the cluster has a primary that HAProxy routes to. */
export function patroniFaults(cluster: PatroniCluster): Fault[] {
  const leader = async () => (await cluster.findLeader())!
  const standbys = async (state: string) => {
    const names = await cluster.query(
      `select application_name from pg_stat_replication where sync_state = '${state}'`,
    )
    return cluster.members.filter(({ name }) => names.split('\n').includes(name))
  }
  const eachStartedOver = (seen: Seen) => everyReplica(seen, startedOver)
  const eachFailedPolls = (seen: Seen) =>
    everyReplica(seen, (seen, replica) => failedPolls(seen, replica) > 0)

  return [
    fault<Member>({
      name: 'planned switchover',
      lasts: 0,
      async inject() {
        const [old, [candidate]] = [await leader(), await standbys('sync')]
        await old.switchOverTo(candidate!)
        return old
      },
      heal: async (_, old) => void (await cluster.settleLeader(old)),
      felt: eachStartedOver,
    }),
    fault<Member>({
      name: 'primary and its Patroni killed with -9',
      lasts: 0,
      async inject() {
        const old = await leader()
        await old.kill()
        return old
      },
      async heal(_, old) {
        await cluster.settleLeader(old)
        old.restart()
      },
      felt: eachStartedOver,
    }),
    fault<Member>({
      name: 'machine of the primary frozen, and resumed after the failover',
      lasts: 0,
      async inject() {
        const old = await leader()
        old.freeze()
        return old
      },
      async heal(_, old) {
        await cluster.settleLeader(old)
        old.resume()
        await sleep(ZOMBIE_MS)
        await cluster.settleLeader()
      },
      felt: eachStartedOver,
    }),
    fault({
      name: 'etcd lost and back',
      lasts: WITHOUT_ETCD_MS,
      async inject() {
        await cluster.etcd.kill()
        const nobodyLeads = async () => (await cluster.findLeader()) === undefined
        await until('the primary is demoted', nobodyLeads, FAILOVER_DEADLINE_MS)
      },
      async heal() {
        await cluster.etcd.restart()
        await cluster.settleLeader()
      },
      felt: seen => everyReplica(seen, cutOff),
    }),
    fault<Member[]>({
      name: 'synchronous standby hung',
      lasts: HUNG_MS,
      async inject() {
        const hung = await standbys('sync')
        for (const member of hung) member.freeze()
        return hung
      },
      heal(_, hung) {
        for (const member of hung) member.resume()
      },
      felt: eachFailedPolls,
    }),
    fault<Member[]>({
      name: 'both standbys hung',
      lasts: HUNG_MS,
      async inject() {
        const primary = await leader()
        const hung = cluster.members.filter(member => member !== primary)
        for (const member of hung) member.freeze()
        return hung
      },
      heal(_, hung) {
        for (const member of hung) member.resume()
      },
      felt: seen => everyReplica(seen, cutOff),
    }),
  ]
}
