import type { Ban, Bans } from './bans.ts'
import type { Call } from './call.ts'
import type { Known } from './known.ts'
import type { Violation } from './violation.ts'

/** A session's row at the end of the run. */
export interface SessionFact {
  gen: number
  /** The session was revoked by its id, and not only by an epoch. */
  revoked: boolean
  /** The epoch of its customer or subject has been raised since. */
  superseded: boolean
  /** Number of its audit rows that raised its generation. */
  rotations: number
}

/** Compares a session's row with what its clients were told. */
export function contradictedSession(
  known: Known,
  bans: Bans,
  name: string,
  fact: SessionFact | undefined,
): Violation[] {
  if (fact === undefined) return [{ what: 'a session is gone', calls: [], about: [name] }]
  const refreshes = known.refreshes.get(name) ?? []
  return [...wrongEnd(fact, bans.ofSession(name)), ...wrongLine(fact, refreshes)].map(violation => ({
    ...violation,
    calls: [],
    about: [name],
  }))
}

function wrongEnd({ revoked, superseded }: SessionFact, bans: Ban[]) {
  const acknowledged = bans.some(({ heldAt }) => heldAt < Number.POSITIVE_INFINITY)
  if (!revoked && !superseded)
    return acknowledged ? [{ what: 'a session lives although its end was acknowledged' }] : []
  const own = bans.filter(({ call: { act } }) => act.does === 'revoke session' || act.does === 'refresh')
  const byNobody = (revoked && own.length === 0) || (superseded && own.length === bans.length)
  return byNobody ? [{ what: 'a session ended without a cause' }] : []
}

/** The row's generation was requested, is not older than any generation returned, and matches the number of audited refreshes. */
function wrongLine({ gen, rotations }: SessionFact, refreshes: Call[]) {
  const answered = refreshes.reduce((most, { granted }) => Math.max(most, granted?.session?.gen ?? 1), 1)
  const asked = refreshes.reduce((most, { act }) => Math.max(most, 'gen' in act ? act.gen + 1 : 1), 1)
  const line = `${gen}, between ${answered} answered and ${asked} requested`
  const audited = `${gen}, refreshed ${rotations} times`
  return [
    ...(gen < answered || gen > asked
      ? [{ what: 'a session has a generation that was not requested, or lost one', detail: line }]
      : []),
    ...(rotations !== gen - 1
      ? [{ what: 'a session was refreshed more or less often than its audit says', detail: audited }]
      : []),
  ]
}
