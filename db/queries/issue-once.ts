import { bare, bareList, setExcluded } from '../columns.ts'
import { alias, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { idempotencyKeys } from '../schema/idempotency-keys.ts'
import { sessions } from '../schema/sessions.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { type AuditContext, auditInsert } from './audit.ts'
import { type Acts, EVERYONES_EPOCH } from './change-feed.ts'
import { customerWithKeys } from './customer-keys.ts'
import {
  ALLOWED,
  auditSessionStart,
  grantParts,
  type IssueResult,
  issueColumns,
  sessionInsert,
} from './issue.ts'
import { isCovered, issuedColumns, raiseParts } from './issued-until.ts'
import { type Defaults, policyColumns } from './policy.ts'
import { type SessionRow, seconds, sessionColumns } from './sessions.ts'

/** Starting a session at most once for each Idempotency-Key. */

const { c, a } = customerWithKeys
const e = alias(subjectEpochs, 'e')
const s = alias(sessions, 's')
const held = alias(idempotencyKeys, 'held')

/**
 * Starts a session unless the Idempotency-Key holds one already (`claimed` false).
 *
 * 1. `clock`, `requests` and `grants` decide whether it may begin (grantParts).
 * 2. `claimed` takes the key, or takes it over once it is expired. The conflict check waits for a concurrent request that
 *    is claiming it. All statements lock the customer's row first, if they do.
 * 3. `allowed` is the grant, if the key was claimed.
 * 4. `started` and `audited` insert the session and its event.
 */
export const insertSessionOnce = prepared('insertSessionOnce')<
  Acts & Defaults & { keyDigest: Uint8Array; requestDigest: Uint8Array },
  IssueResult & { claimed: boolean }
>(sql`
  with ${grantParts({ alone: true })},
  claimed as (
    insert into ${idempotencyKeys} as ${held}
      (${bareList(held, 'customerId', 'keyDigest', 'requestDigest', 'sessionId', 'expiresAt')})
    select customer_id, ${param('keyDigest')}, ${param('requestDigest')}, session_id, t + interval '10 minutes'
    from ${sql.raw(ALLOWED)}
    on conflict (${bareList(held, 'customerId', 'keyDigest')}) do update
      set ${setExcluded(held, 'requestDigest', 'sessionId', 'expiresAt')}
    where ${held.expiresAt} <= ${now}
    returning 1
  ),
  allowed as (select * from ${sql.raw(ALLOWED)} and exists (select from claimed)),
  started as (${sessionInsert('allowed')}),
  audited as (${auditSessionStart('allowed')})
  select ${issueColumns}, exists (select from claimed) as claimed from grants`)

const i = alias(idempotencyKeys, 'i')

/** `changed`: the customer's row was changed meanwhile, and the statement must be repeated. */
type ReplayOutcome = 'replay' | 'other_request' | 'moved_on' | 'changed'

/**
 * The session that an Idempotency-Key started, with a new access token for it: the answer to a retry. `outcome` is
 * `replay`, `other_request`, or `moved_on` once the session is no longer in its first generation.
 *
 * 1. `clock` and `current` are the time and the customer, and `due`, `held` and `raised` raise its `issued_until`
 *    (raiseParts), before the session is locked: an erasure locks both in this order.
 * 2. `locked` locks the session that the key started.
 * 3. `decided` has the outcome, by the time after the lock.
 * 4. `replayed` and `audited` note the new access token.
 */
export const replayIssue = prepared('replayIssue')<
  AuditContext &
    Defaults & { customerId: string; keyDigest: Uint8Array; requestDigest: Uint8Array; tokenId: string },
  SessionRow & { outcome: ReplayOutcome; issuedAt: number; accessVersion: number }
>(sql`
  with clock as materialized (select ${now} as t),
  current as materialized (
    select ${c.id} as customer_id, greatest(${c.epoch}, ${EVERYONES_EPOCH}) as epoch, ${a.version} as access_version,
      ${issuedColumns(c)}, policy.*, t + make_interval(secs => most_ttl) as until
    from clock, ${customers} as ${c}
    join ${signingKeys} as ${a} on ${a.customerId} = ${c.id} and ${a.use} = 'access' and ${a.state} = 'current'
    cross join lateral (select ${policyColumns(c)}) as policy
    where ${c.id} = ${param('customerId')} and ${c.state} = 'active'
  ),
  ${raiseParts('current', true)},
  locked as materialized (
    select s.*, ${i.requestDigest}
    from ${idempotencyKeys} as ${i}
    join ${sessions} as ${s} on ${s.customerId} = ${i.customerId} and ${s.id} = ${i.sessionId}
    where ${i.customerId} = ${param('customerId')} and ${i.keyDigest} = ${param('keyDigest')}
      and (select count(*) from held) >= 0
    for update of ${s}
  ),
  decided as materialized (
    select locked.*, now.t, current.access_version, allowed_scopes, most_ttl, case
      when locked.request_digest <> ${param('requestDigest')} then 'other_request'
      when locked.gen <> 1 or locked.revoked_at is not null or locked.expires_at <= now.t
        or current.epoch > locked.customer_epoch or coalesce(${e.epoch}, 0) > locked.subject_epoch then 'moved_on'
      when not ${isCovered('current')} then 'changed'
      else 'replay' end as outcome
    from locked
    cross join lateral (select ${now} as t where locked.id is not null) now
    join current on current.customer_id = locked.customer_id
    left join ${subjectEpochs} as ${e} on ${e.customerId} = locked.customer_id and ${e.subject} = locked.subject
  ),
  replayed as (
    update ${sessions} as ${s}
    set ${bare(s.accessUntil)} = greatest(${s.accessUntil},
      least(d.t + make_interval(secs => least(${s.accessTtl}, d.most_ttl)), ${s.expiresAt}))
    from decided as d where ${s.customerId} = d.customer_id and ${s.id} = d.id and d.outcome = 'replay'
  ),
  audited as (${auditInsert('session.replayed', `decided where outcome = 'replay'`, {
    subject: sql`subject`,
    session: sql`id`,
    token: sql`${param('tokenId')}::text`,
  })})
  select ${sessionColumns('decided')}, outcome, ${seconds(sql`t`)} as "issuedAt",
    access_version as "accessVersion" from decided`)
