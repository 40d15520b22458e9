import { bareList, insertInto, setExcluded } from '../columns.ts'
import { alias, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { revocations } from '../schema/revocations.ts'
import { sessions } from '../schema/sessions.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { type AuditContext, auditInsert } from './audit.ts'
import { deleteReplaced, LONGEST_TOKEN, nextEpoch, publishedColumns, publishParts } from './change-feed.ts'
import { clockIsTrusted } from './database-clock.ts'

const s = alias(sessions, 's')
const k = alias(signingKeys, 'k')
const r = alias(revocations, 'r')

/**
 * A subject's row is kept this long before maintenance checks whether a session needs it: by then all tokens that it
 * ends have expired.
 */
const KEPT = sql`interval '2 days'`

/**
 * A token that expired less than this ago counts as alive. The database's clock may be ahead, and be set back: a row
 * that is dead is in no replica's memory, and maintenance keeps it as long. It also covers a token that was issued
 * since the snapshot.
 */
const CLOCK_MARGIN = sql`interval '1 hour'`

/**
 * The latest expiry of a token that an imported key signed elsewhere: `exp - iat` is at most 24 hours, and `iat` at
 * most a minute ahead.
 */
const importedUntil = sql`case when exists (
    select from ${signingKeys} as ${k}
    where ${k.customerId} = drawn.customer_id and ${k.use} = 'access' and ${k.state} <> 'retired' and ${k.alg} in ('HS256', 'HS384')
  ) then t + ${LONGEST_TOKEN} + interval '1 minute' end`

/**
 * Whether a token of the customer may be alive. While the clock isn't trusted, any that was ever issued may be: the
 * clock may be hours ahead, and a row that is published now is read again when it is set back. No row is deleted
 * during that time.
 */
const hasToken = sql`(last_expiry > t - ${CLOCK_MARGIN} or last_expiry > '-infinity' and not ${clockIsTrusted})`

/** Whether the customer has reached its limit of live rows for other subjects. */
const isFull = sql`case when ${param('mostLive')}::int is null then false else (
    select count(*) from (
      select from ${revocations} as ${r}
      where ${r.kind} = 'subject' and ${r.customerId} = ${param('customerId')} and ${r.deadAfter} > found.t
        and ${r.key} <> ${param('subject')}
      limit ${param('mostLive')}::int
    ) as live
  ) >= ${param('mostLive')}::int end`

export interface SubjectRevocation {
  /** The customer has `mostLive` live revocations of subjects already. Nothing was changed. */
  refused: boolean
  epoch: number
  /** The change feed's number; null if no live token can be affected. */
  seq: number | null
}

/**
 * Ends every token and session of a subject that began before, by raising its epoch. If nothing can be affected, only the audit
 * event is written: without a live token of the customer nothing is published, and if the subject has no session either, it gets
 * no epoch. `mostLive`: the limit on the customer's live rows, or null. No row: no such customer.
 *
 * 1. `locked` locks the customer's row and reads its latest `issued_until`, as db/queries/issued-until.ts explains.
 * 2. `drawn` draws the epoch and the time, after that lock: a concurrent revocation that held the lock before has a lower epoch.
 * 3. `found` has the latest exp of the customer's tokens, and whether the subject has a session. If a session was committed since
 *    the snapshot, its token counts.
 * 4. `decided` refuses a row above the limit.
 * 5. `raised` sets the subject's epoch, and `replaced` deletes the subject's earlier change.
 * 6. `audited` and `changes` audit and publish it.
 */
export const raiseSubjectEpoch = prepared('raiseSubjectEpoch')<
  AuditContext & { customerId: string; subject: string; mostLive: number | undefined },
  SubjectRevocation
>(sql`
  with locked as materialized (
    select ${customers.id} as customer_id, ${customers.issuedUntil} from ${customers}
    where ${customers.id} = ${param('customerId')}
    for no key update
  ),
  drawn as materialized (select locked.*, ${nextEpoch} as epoch, ${now} as t from locked),
  found as materialized (
    select customer_id, ${param('subject')}::text as subject, epoch, t, last_expiry, ${hasToken} as has_token,
      exists (select from ${sessions} as ${s}
        where ${s.customerId} = drawn.customer_id and ${s.subject} = ${param('subject')}) as has_session
    from drawn cross join lateral (select greatest(issued_until, ${importedUntil}) as last_expiry) as latest
  ),
  decided as materialized (
    select *, case when has_token then ${isFull} else false end as refused from found
  ),
  raised as (
    ${insertInto(subjectEpochs, 'customerId', 'subject', 'epoch', 'changedAt', 'checkAfter')}
    select customer_id, subject, epoch, t, t + ${KEPT} from decided where not refused and (has_token or has_session)
    on conflict (${bareList(subjectEpochs, 'customerId', 'subject')}) do update
      set ${setExcluded(subjectEpochs, 'epoch', 'changedAt', 'checkAfter')}
    returning 1
  ),
  audited as (${auditInsert('subject.revoked', 'decided where not refused', { subject: sql`subject` })}),
  published_subject as (select * from decided where not refused and has_token),
  replaced as (${deleteReplaced('subject', 'published_subject', sql`new.subject`)}),
  ${publishParts('subject', 'published_subject', ['raised', 'replaced', 'audited'], {
    key: sql`subject`,
    epoch: sql`epoch`,
    lastExpiry: sql`last_expiry`,
  })}
  select ${publishedColumns}, epoch, refused from decided`)
