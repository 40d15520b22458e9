import { bare } from '../columns.ts'
import { alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'

/**
 * No access token is issued that expires after its customer's `issued_until`, because the revocation of a subject is kept
 * only until then. The statement that issues a token compares the two in its own snapshot. If the token would expire later, it
 * writes nothing and answers `uncovered`. The caller commits raiseIssuedUntil and repeats the statement on a new snapshot
 * (server/tokens/issued-until.ts).
 *
 * This is enough without a lock in the statement that issues. A revocation locks the customer's row, as a raise does, and reads
 * its latest version. If the raise that a token relies on was committed before, the revocation reads its value or a higher
 * one, which is not before the token's exp. Otherwise the raise waited until the revocation was committed. A snapshot that
 * sees the raise then sees the subject's new epoch too, and the token has it.
 *
 * It holds on two conditions: `issued_until` never becomes lower, and a statement reads it in the same snapshot as the
 * subject's epoch. A row that was locked may be newer than the snapshot.
 */

/** How far beyond the longest token `issued_until` is set. */
const AHEAD = sql`interval '15 minutes'`

/**
 * `issued_until` is raised this long before it is needed, so that a customer that issues tokens continuously never waits for it.
 */
const EARLY = sql`interval '5 minutes'`

const c = alias(customers, 'c')

const issuedUntil = (ttl: SQL) => sql`${now} + make_interval(secs => ${ttl}) + ${AHEAD}`

/** The `issued_until` of a customer that has no policy yet. */
export const firstIssuedUntil = issuedUntil(sql`${param('maxAccessTokenTtl')}::int`)

/** Whether a token that expires at `exp` must not be issued yet, by the `issued_until` of the customer in the snapshot. */
export const isUncovered = (exp: SQL) => sql`${exp} > issued_until`

/** Whether a token that expires five minutes after `exp` must not be issued yet. */
export const isRaiseDue = (exp: SQL) => sql`${exp} > issued_until - ${EARLY}`

/** Raises a customer's `issued_until` so far that it covers every token that its policy allows within the next 15 minutes. */
export const raiseIssuedUntil = prepared('raiseIssuedUntil')<
  { customerId: string; maxAccessTokenTtl: number },
  never
>(sql`
  update ${customers} as ${c} set ${bare(c.issuedUntil)} = greatest(${c.issuedUntil},
    ${issuedUntil(sql`coalesce(${c.maxAccessTokenTtl}, ${param('maxAccessTokenTtl')}::int)`)})
  where ${c.id} = ${param('customerId')}`)
