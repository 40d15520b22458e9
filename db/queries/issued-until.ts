import { bare, type Columns } from '../columns.ts'
import { alias, type SQL, sql } from '../drizzle.ts'
import { customers } from '../schema/customers.ts'

/** How far beyond a token's exp `issued_until` is set. */
const AHEAD = sql`interval '15 minutes'`

/**
 * `issued_until` is raised so long before it is needed. So a busy customer's row changes once in ten minutes, and its tokens
 * don't wait for the row's lock.
 */
const EARLY = sql`interval '5 minutes'`

/** What is known of a token's exp before a row's lock is waited for may be exceeded by so much. No statement waits longer. */
const LOCK_WAIT = sql`interval '10 seconds'`

const c = alias(customers, 'c')

/** The columns of a customer that `raiseParts` and `isCovered` need, from a row that the statement has not locked. */
export const issuedColumns = (of: Columns<typeof customers>) => sql`${of.issuedUntil}, ${of.lastSubjectEpoch}`

/** The `issued_until` of a customer whose first token expires at `exp`. */
export const firstIssuedUntil = (exp: SQL) => sql`${exp} + ${AHEAD}`

/**
 * Raises `issued_until` of customers before a token of theirs may expire later. `from` has `customer_id`, the issuedColumns
 * as the statement's snapshot has them, and `until`, the latest exp of its token, by the time before any lock.
 *
 * A revocation of a subject is kept until the customer's `issued_until`. A token that is issued at the same time has the
 * subject's old epoch, so that value must not be lower than its exp. Both statements lock the customer's row. If the
 * revocation is first, the row has another `last_subject_epoch` than the snapshot, and the token is not issued. If the token
 * is first, the revocation reads the raised value. A token that needs no raise relies on one that was committed before its
 * snapshot; the revocation was not, so it locked the row later and reads that value too.
 *
 * 1. `due` are the customers whose `issued_until` is too early, or soon will be.
 * 2. `held` locks their rows, in one order. `same`: no subject was revoked since the snapshot. Unless `alone`, a locked row is
 *    skipped: an act of one customer must not wait for another's.
 * 3. `covered` raises it.
 */
export const raiseParts = (from: string, alone: boolean): SQL => sql`
  due as materialized (
    select customer_id, min(last_subject_epoch) as last_subject_epoch, max(until) as until
    from ${sql.raw(from)}
    where until > issued_until - ${EARLY}
    group by customer_id
  ),
  held as materialized (
    select due.customer_id, due.until, row.issued_until, row.last_subject_epoch = due.last_subject_epoch as same
    from (select * from due order by customer_id) as due
    cross join lateral (
      select ${issuedColumns(c)} from ${customers} as ${c} where ${c.id} = due.customer_id
      for no key update ${alone ? sql`` : sql`skip locked`}
    ) as row
  ),
  raised as (
    update ${customers} as ${c} set ${bare(c.issuedUntil)} = held.until + ${AHEAD}
    from held
    where ${c.id} = held.customer_id and held.same and held.until > held.issued_until - ${EARLY}
  )`

/** Whether the token of a row of `of` may be issued. If not, the statement must be repeated on a new snapshot. */
export const isCovered = (
  of: string,
) => sql`(${sql.raw(of)}.until + ${LOCK_WAIT} <= ${sql.raw(of)}.issued_until
  or exists (select from held where held.customer_id = ${sql.raw(of)}.customer_id and held.same))`
