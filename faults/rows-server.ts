import { accepted, allConnectedSince, cutOff, everyReplica, fault } from './fault.ts'
import { ask, N, type Stage } from './stage.ts'

/** Faults of the whole database server: it is frozen, restarted or crashed. No revocation is possible during them. */

const bootOf = async (stage: Stage) =>
  (await ask<{ at: Date }>(stage, 'select pg_postmaster_start_time() as at'))[0]!.at.getTime()

export const serverFaults = [
  fault({
    name: 'one backend killed with -9',
    ownServer: true,
    lasts: 500,
    async inject(stage) {
      const before = { crashes: crashes(stage), accepted: accepted(stage) }
      const [victim] = await ask<{ pid: number }>(
        stage,
        `select pid from pg_stat_activity where datname = current_database() and application_name = 'assay' limit 1`,
      )
      process.kill(victim!.pid, 'SIGKILL')
      return before
    },
    heal() {},
    // When a signal kills one backend, the server ends all of them and recovers from its log.
    felt: (_, before, stage) => crashes(stage) > before.crashes && allConnectedSince(before.accepted, stage),
  }),
  fault({
    name: 'Postgres SIGSTOP and SIGCONT',
    ownServer: true,
    lasts: 2.5 * N,
    inject: async stage => stage.server!.freeze(),
    heal: stage => stage.server!.thaw(),
    felt: seen => everyReplica(seen, cutOff),
  }),
  fault({
    name: 'Postgres restart',
    ownServer: true,
    lasts: 500,
    async inject(stage) {
      const before = { boot: await bootOf(stage), accepted: accepted(stage) }
      await stage.server!.restart()
      return before
    },
    heal() {},
    felt: async (_, before, stage) =>
      (await bootOf(stage)) > before.boot && allConnectedSince(before.accepted, stage),
  }),
]

const crashes = (stage: Stage) => stage.server!.log().split('all server processes terminated').length
