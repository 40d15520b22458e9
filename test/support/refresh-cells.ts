import { changeCustomer, moveSubjectEpoch, type StoppedClock } from './sessions.ts'
import type { Customer, Replica, Tokens, World } from './world.ts'

/** The cells of the design's refresh table: how to reach each one, and its answer under each policy. */

export type Policy = 'until_confirmed' | 'grace_only' | 'strict' | 'reusable'

/** A policy, and whether the token is presented with its customer's API key. All other tokens are presented without one. */
export interface Column {
  policy: Policy
  authenticated: boolean
}

export const COLUMNS: Column[] = [
  { policy: 'until_confirmed', authenticated: false },
  { policy: 'until_confirmed', authenticated: true },
  { policy: 'grace_only', authenticated: false },
  { policy: 'strict', authenticated: true },
  { policy: 'strict', authenticated: false },
  { policy: 'reusable', authenticated: false },
  { policy: 'reusable', authenticated: true },
]

export type Outcome = 'rotate' | 'renew' | 'replay' | 'late' | 'adopt' | 'keep' | 'reuse' | 'ended'

export const SAID: Record<Outcome, string> = {
  rotate: 'returns a new one',
  renew: 'remains the current one',
  replay: 'returns the same successor again',
  late: 'returns the same successor again, which is audited as late',
  adopt: 'is accepted, and audited as critical',
  keep: 'is accepted, audited as critical, and remains the current one',
  reuse: 'ends the session',
  ended: 'is refused, and nothing changes',
}

/** A session with every token its client received, oldest first. */
export interface Scene {
  replica: Replica
  customer: Customer
  id: string
  given: Tokens[]
  /** Refreshes as an honest client does. */
  refresh(times?: number): Promise<void>
  /** Verifies the newest access token, and waits until that use is written. */
  use(): Promise<void>
  logOut(): Promise<unknown>
  wait(milliseconds: number): Promise<void>
  /** Sets columns of the session's row. */
  plant(assignment: string): Promise<unknown>
  changeCustomer(assignment: string): Promise<void>
  moveSubjectEpoch(): Promise<void>
}

interface Stage {
  world: World
  clock: StoppedClock
  replica: Replica
  replicas: Replica[]
  customer: Customer
}

export async function sceneOn({ world, clock, replica, replicas, customer }: Stage): Promise<Scene> {
  const given = [await customer.session({ expires_in: 86_400 })]
  const { session_id: id } = given[0]!
  return {
    replica,
    customer,
    id,
    given,
    async refresh(times = 1) {
      for (let turn = 0; turn < times; turn++)
        given.push((await replica.refresh(given.at(-1)!.refresh_token)).json)
    },
    async use() {
      await replica.verify(given.at(-1)!.access_token)
      await replica.sessions.flush()
    },
    logOut: () => replica.postForm('/revoke', { token: given.at(-1)!.refresh_token }),
    wait: clock.advance,
    plant: assignment => world.admin.query(`update assay.sessions set ${assignment} where id = $1`, [id]),
    changeCustomer: assignment => changeCustomer(world, replicas, customer.id, assignment),
    moveSubjectEpoch: () => moveSubjectEpoch(world, replicas, { customerId: customer.id, subject: 'user-1' }),
  }
}

/** The refresh grace G, in milliseconds. */
const GRACE = 10_000
const HOUR = 3_600_000
const IDLE = 30 * 24 * HOUR

export interface Cell {
  /** The beginning of the test's name. */
  presented: string
  /** How many rotations old the token is; 0 is the newest. */
  back: number
  arrange(scene: Scene): Promise<unknown>
  /** The answers under until_confirmed, grace_only and strict, if they differ. */
  outcomes: readonly [Outcome, Outcome, Outcome] | readonly [Outcome]
  /** The customer is changed; the change affects no other customer. */
  alone?: true
  /** The customer is disabled. */
  disabled?: true
  /** Whether access tokens of an ended session are refused too; undefined if they have expired anyway. */
  accessEnded?: true
}

const granted: Cell[] = [
  {
    presented: 'the first token',
    back: 0,
    arrange: async () => {},
    outcomes: ['rotate'],
  },
  {
    presented: 'the current token, in use and idle until its last minute,',
    back: 0,
    arrange: async s => [await s.refresh(2), await s.use(), await s.wait(IDLE - 60_000)],
    outcomes: ['rotate'],
  },
  {
    presented: 'a token one generation ahead of a database that was set back',
    back: 0,
    arrange: async s => [await s.refresh(3), await s.plant('gen = gen - 1')],
    outcomes: ['adopt'],
  },
  {
    presented: 'a token far ahead of a database that was set back, an hour later,',
    back: 0,
    arrange: async s => [await s.refresh(4), await s.plant('gen = 1'), await s.wait(HOUR)],
    outcomes: ['adopt'],
  },
]

const before: Cell[] = [
  {
    presented: 'the previous token, a moment less than the grace after its rotation, its successor unused,',
    back: 1,
    arrange: async s => [await s.refresh(), await s.wait(GRACE - 1)],
    outcomes: ['replay', 'replay', 'reuse'],
  },
  {
    presented: 'the previous token, a moment more than the grace after its rotation, its successor unused,',
    back: 1,
    arrange: async s => [await s.refresh(), await s.wait(GRACE + 1)],
    outcomes: ['late', 'reuse', 'reuse'],
  },
  {
    presented: 'the previous token, an hour after its rotation, its successor unused,',
    back: 1,
    arrange: async s => [await s.refresh(3), await s.wait(HOUR)],
    outcomes: ['late', 'reuse', 'reuse'],
  },
  {
    presented: 'the previous token, less than the grace after its rotation, its successor used at once,',
    back: 1,
    arrange: async s => [await s.refresh(), await s.use(), await s.wait(GRACE - 1)],
    outcomes: ['replay', 'replay', 'reuse'],
  },
  {
    presented: 'the previous token, more than the grace after its rotation, its successor used at once,',
    back: 1,
    arrange: async s => [await s.refresh(), await s.use(), await s.wait(GRACE + 1)],
    outcomes: ['reuse'],
  },
  {
    presented: 'the previous token, less than the grace after its successor was first used,',
    back: 1,
    arrange: async s => [await s.refresh(), await s.wait(60_000), await s.use(), await s.wait(GRACE - 1)],
    outcomes: ['late', 'reuse', 'reuse'],
  },
  {
    presented: 'the previous token, more than the grace after its successor was first used,',
    back: 1,
    arrange: async s => [await s.refresh(), await s.wait(60_000), await s.use(), await s.wait(GRACE + 1)],
    outcomes: ['reuse'],
  },
]

const older: Cell[] = [
  {
    presented: 'the third-newest token, less than the grace after it was replaced,',
    back: 2,
    arrange: async s => [await s.refresh(), await s.wait(GRACE - 1), await s.refresh()],
    outcomes: ['replay', 'replay', 'reuse'],
  },
  {
    presented: 'the third-newest token, more than the grace after it was replaced,',
    back: 2,
    arrange: async s => [await s.refresh(), await s.wait(GRACE + 1), await s.refresh()],
    outcomes: ['reuse'],
  },
  {
    presented: 'the fourth-newest token, at once,',
    back: 3,
    arrange: s => s.refresh(3),
    outcomes: ['reuse'],
  },
]

const ended: Cell[] = [
  {
    presented: 'the current token of a session that its client has ended',
    back: 0,
    arrange: async s => [await s.refresh(), await s.logOut()],
    outcomes: ['ended'],
    accessEnded: true,
  },
  {
    presented: 'the fourth-newest token of a session that its client has ended,',
    back: 3,
    arrange: async s => [await s.refresh(3), await s.logOut()],
    outcomes: ['ended'],
    accessEnded: true,
  },
  {
    presented: 'the current token of a session that was idle for too long',
    back: 0,
    arrange: async s => [await s.refresh(), await s.wait(IDLE)],
    outcomes: ['ended'],
    accessEnded: true,
  },
  {
    presented: 'the current token of a session whose row is past its idle expiry',
    back: 0,
    arrange: s => s.plant('expires_at = assay.now()'),
    outcomes: ['ended'],
  },
  {
    presented: 'the current token of a session whose row is past its absolute expiry',
    back: 0,
    arrange: s => s.plant('expires_at = assay.now(), ends_at = assay.now()'),
    outcomes: ['ended'],
  },
  {
    presented: 'the current token of a disabled customer',
    back: 0,
    arrange: s => s.changeCustomer(`state = 'disabled'`),
    outcomes: ['ended'],
    disabled: true,
    alone: true,
    accessEnded: true,
  },
  {
    presented: 'the fourth-newest token of a disabled customer,',
    back: 3,
    arrange: async s => [await s.refresh(3), await s.changeCustomer(`state = 'disabled'`)],
    outcomes: ['ended'],
    disabled: true,
    alone: true,
    accessEnded: true,
  },
  {
    presented: `the current token of a session older than its customer's epoch`,
    back: 0,
    arrange: s => s.changeCustomer(`epoch = nextval('assay.epochs')`),
    outcomes: ['ended'],
    alone: true,
    accessEnded: true,
  },
  {
    presented: `the current token of a session older than its subject's epoch`,
    back: 0,
    arrange: s => s.moveSubjectEpoch(),
    outcomes: ['ended'],
    alone: true,
    accessEnded: true,
  },
]

export const cells: Cell[] = [...granted, ...before, ...older, ...ended]

const ROTATING: Policy[] = ['until_confirmed', 'grace_only', 'strict']

/** Under `reusable` an authenticated client keeps its token. Otherwise it is like `until_confirmed`. */
export function outcomeOf({ outcomes }: Cell, { policy, authenticated }: Column): Outcome {
  const outcome = outcomes[Math.max(0, ROTATING.indexOf(policy))] ?? outcomes[0]
  if (policy !== 'reusable' || !authenticated) return outcome
  return outcome === 'rotate' ? 'renew' : outcome === 'adopt' ? 'keep' : outcome
}
