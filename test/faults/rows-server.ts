import { cutOff, fault, type Seen } from './fault.ts'
import { ask, N, type Stage } from './stage.ts'

/** Faults of the whole server: it is frozen, restarted, crashed. Nobody can revoke meanwhile. */

const bootOf = async (stage: Stage) =>
  (await ask<{ at: Date }>(stage, 'select pg_postmaster_start_time() as at'))[0]!.at.getTime()

const everyReplica = (seen: Seen, holds: (seen: Seen, replica: number) => boolean) =>
  seen.before.every((_, replica) => holds(seen, replica))

export const serverFaults = [
  fault({
    name: 'one backend killed with -9',
    ownServer: true,
    lasts: 500,
    async inject(stage) {
      const before = crashes(stage)
      const [victim] = await ask<{ pid: number }>(
        stage,
        `select pid from pg_stat_activity where datname = current_database() and application_name = 'assay' limit 1`,
      )
      process.kill(victim!.pid, 'SIGKILL')
      return before
    },
    heal() {},
    // One backend's end by a signal makes the server end them all and recover from its log.
    felt: (_, before, stage) => crashes(stage) > before,
  }),
  fault({
    name: 'Postgres SIGSTOP and SIGCONT',
    ownServer: true,
    lasts: 2.5 * N,
    inject: stage => stage.server!.freeze(),
    heal: stage => stage.server!.thaw(),
    felt: seen => everyReplica(seen, cutOff),
  }),
  fault({
    name: 'Postgres restart',
    ownServer: true,
    lasts: 500,
    async inject(stage) {
      const before = await bootOf(stage)
      await stage.server!.restart()
      return before
    },
    heal() {},
    felt: async (_, before, stage) => (await bootOf(stage)) > before,
  }),
]

const crashes = (stage: Stage) => stage.server!.log().split('all server processes terminated').length
