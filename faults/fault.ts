import type { Decision, Revocation } from './history.ts'
import type { Load } from './load.ts'
import type { Reading, Stage } from './stage.ts'

/** Something that goes wrong, and how to detect that it did. Most faults need only tokens to revoke from the load. */
export interface Fault<Mark = unknown, Needs extends Victims = Load> {
  name: string
  /** Stops or crashes the whole database server, so it needs a server of its own. */
  ownServer?: true
  /** The replicas share a Redis server that the drill starts. */
  redis?: true
  /** Time between inject and heal (ms). */
  lasts: number
  /** Causes the fault. Its result is passed to `heal` and `felt`. */
  inject: (stage: Stage, load: Needs) => Promise<Mark>
  heal(stage: Stage, mark: Mark): Promise<void> | void
  /** Whether the servers were affected by the fault. A drill without this proof shows nothing. */
  felt(seen: Seen, mark: Mark, stage: Stage): Promise<boolean> | boolean
}

/** Tokens for a fault that revokes. */
export interface Victims {
  /** Returns a live token that no other client will revoke. */
  take(): Victim | undefined
  /** Records the revocation that `act` performs. `act` returns the status. */
  revoke(victim: Victim, act: (victim: Victim) => Promise<number | undefined>): Promise<unknown>
}

/** An access token, with its name in the history. */
export interface Victim {
  name: string
  access: string
}

/** Observations from before the fault until it was healed, unless noted otherwise. */
export interface Seen {
  /** One reading per replica: before the fault, when it was healed, and after recovery. */
  before: Reading[]
  after: Reading[]
  recovered: Reading[]
  decisions: Decision[]
  /** Revocations requested during the fault. */
  revocations: Revocation[]
  /** In milliseconds. */
  lasted: number
}

/** Lets faults with different mark types share one list. A mark is only ever passed back to the fault that made it. */
export const fault = <Mark, Needs extends Victims = Victims>(row: Fault<Mark, Needs>) =>
  row as Fault<unknown, Needs>

export const failedPolls = ({ before, after }: Seen, replica: number) =>
  after[replica]!.failures - before[replica]!.failures

/** Polls of each replica during the fault. */
export const polls = ({ before, after }: Seen) =>
  before.map(({ polls }, replica) => after[replica]!.polls - polls)

/** Whether a replica's polls failed and it answered 503 instead of guessing. */
export const cutOff = (seen: Seen, replica: number) =>
  failedPolls(seen, replica) > 0 &&
  seen.decisions.some(decision => decision.replica === replica && decision.status === 503)

/** The greatest age of the state that a replica answered from (ms). */
export const oldest = ({ decisions }: Seen, replica: number) =>
  decisions.reduce((most, { replica: at, age = 0 }) => (at === replica ? Math.max(most, age) : most), 0)

export const everyReplica = (seen: Seen, holds: (seen: Seen, replica: number) => boolean) =>
  seen.before.every((_, replica) => holds(seen, replica))

/** The number of connections accepted from each replica. */
export const accepted = ({ replicas }: Stage) => replicas.map(({ link }) => link.counts.accepted)

/** Whether each replica has opened a new connection since. */
export const allConnectedSince = (before: number[], stage: Stage) =>
  accepted(stage).every((count, replica) => count > before[replica]!)

/** Requests that a replica took longer than `longer` (ms) to answer. */
export const kept = ({ decisions }: Seen, replica: number, longer: number) =>
  decisions.filter(
    ({ replica: at, sentAt, recordAnswer }) => at === replica && recordAnswer - sentAt > longer,
  )
