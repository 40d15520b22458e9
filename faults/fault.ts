import type { Decision, Revocation } from './history.ts'
import type { Load } from './load.ts'
import type { Reading, Stage } from './stage.ts'

/** Something that goes wrong, and how one can tell that it did. Most need nothing of the load but tokens to revoke. */
export interface Fault<Mark = unknown, Needs extends Victims = Load> {
  name: string
  /** It stops or crashes the whole server, which can't be one that others use. */
  ownServer?: true
  /** The replicas share a Redis, which is our own. */
  redis?: true
  /** Between inject and heal (ms). */
  lasts: number
  /** Does the harm; what it answers is handed on to `heal` and `felt`. */
  inject: (stage: Stage, load: Needs) => Promise<Mark>
  heal(stage: Stage, mark: Mark): Promise<void> | void
  /** The proof that servers met the fault: a drill without one shows nothing. */
  felt(seen: Seen, mark: Mark, stage: Stage): Promise<boolean> | boolean
}

/** Tokens for a fault that revokes. */
export interface Victims {
  /** A live one that nobody else will revoke. */
  take(): Victim | undefined
  /** Notes the revocation around `act`, which answers its status. */
  revoke(victim: Victim, act: (victim: Victim) => Promise<number | undefined>): Promise<unknown>
}

/** An access token, with its name in the history. */
export interface Victim {
  name: string
  access: string
}

/** From before the fault until it was healed, where nothing else is said. */
export interface Seen {
  /** Of each replica, before the fault, when it was healed, and when all worked again. */
  before: Reading[]
  after: Reading[]
  recovered: Reading[]
  decisions: Decision[]
  /** Asked for meanwhile. */
  revocations: Revocation[]
  /** Milliseconds. */
  lasted: number
}

/** Lets rows of different marks stand in one list; a mark only ever returns to the row that made it. */
export const fault = <Mark, Needs extends Victims = Victims>(row: Fault<Mark, Needs>) =>
  row as Fault<unknown, Needs>

export const failedPolls = ({ before, after }: Seen, replica: number) =>
  after[replica]!.failures - before[replica]!.failures

/** Of each replica. */
export const polls = ({ before, after }: Seen) =>
  before.map(({ polls }, replica) => after[replica]!.polls - polls)

/** Whether a replica's polls failed and it said so: it answered 503 rather than guess. */
export const cutOff = (seen: Seen, replica: number) =>
  failedPolls(seen, replica) > 0 &&
  seen.decisions.some(decision => decision.replica === replica && decision.status === 503)

/** The oldest state that a replica answered from (ms). */
export const oldest = ({ decisions }: Seen, replica: number) =>
  decisions.reduce((most, { replica: at, age = 0 }) => (at === replica ? Math.max(most, age) : most), 0)

export const everyReplica = (seen: Seen, holds: (seen: Seen, replica: number) => boolean) =>
  seen.before.every((_, replica) => holds(seen, replica))

/** Connections that each replica has made. */
export const accepted = ({ replicas }: Stage) => replicas.map(({ link }) => link.counts.accepted)

/** Whether each replica has had to connect since. */
export const allConnectedSince = (before: number[], stage: Stage) =>
  accepted(stage).every((count, replica) => count > before[replica]!)

/** Requests that a replica took more than so long to answer (ms). */
export const kept = ({ decisions }: Seen, replica: number, longer: number) =>
  decisions.filter(
    ({ replica: at, sentAt, recordAnswer }) => at === replica && recordAnswer - sentAt > longer,
  )
