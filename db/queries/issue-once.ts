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
import { isRaiseDue, isUncovered } from './issued-until.ts'
import { type Defaults, policyColumns } from './policy.ts'
import { type SessionRow, seconds, sessionColumns } from './sessions.ts'

/** Starts a session at most once for each Idempotency-Key. */

const { c, a } = customerWithKeys
const e = alias(subjectEpochs, 'e')
const s = alias(sessions, 's')
const held = alias(idempotencyKeys, 'held')

/**
 * Starts a session unless the Idempotency-Key holds one already (`claimed` false).
 *
 * 1. `clock`, `requests` and `grants` decide whether it may begin (grantParts).
 * 2. `claimed` takes the key, or takes it over once it is expired. The conflict check waits for a concurrent request that
 *    is claiming it.
 * 3. `allowed` is the grant, if the key was claimed.
 * 4. `started` and `audited` insert the session and its event.
 */
export const insertSessionOnce = prepared('insertSessionOnce')<
  Acts & Defaults & { keyDigest: Uint8Array; requestDigest: Uint8Array },
  IssueResult & { claimed: boolean }
>(sql`
  with ${grantParts()},
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

type ReplayOutcome = 'replay' | 'other_request' | 'moved_on' | 'uncovered'

/** The new token's exp, by the time after the lock. */
const EXP = sql`now.t + make_interval(secs => least(held.access_ttl, most_ttl))`

/**
 * The session that an Idempotency-Key started, with a new access token for it: the answer to a retry. `outcome` is
 * `replay`, `other_request`, `moved_on` once the session is no longer in its first generation, or `uncovered` if the
 * statement must be repeated after raiseIssuedUntil.
 *
 * 1. `held` locks the session that the key started.
 * 2. `decided` has the outcome, by the time after the lock.
 * 3. `replayed` and `audited` note the new access token.
 */
export const replayIssue = prepared('replayIssue')<
  AuditContext &
    Defaults & { customerId: string; keyDigest: Uint8Array; requestDigest: Uint8Array; tokenId: string },
  SessionRow & { outcome: ReplayOutcome; raiseDue: boolean; issuedAt: number; accessVersion: number }
>(sql`
  with held as materialized (
    select s.*, ${i.requestDigest}
    from ${idempotencyKeys} as ${i}
    join ${sessions} as ${s} on ${s.customerId} = ${i.customerId} and ${s.id} = ${i.sessionId}
    where ${i.customerId} = ${param('customerId')} and ${i.keyDigest} = ${param('keyDigest')}
    for update of ${s}
  ),
  decided as materialized (
    select held.*, now.t, ${a.version} as access_version, policy.*, ${isRaiseDue(EXP)} as raise_due, case
      when held.request_digest <> ${param('requestDigest')} then 'other_request'
      when held.gen <> 1 or held.revoked_at is not null or held.expires_at <= now.t
        or greatest(${c.epoch}, ${EVERYONES_EPOCH}) > held.customer_epoch
        or coalesce(${e.epoch}, 0) > held.subject_epoch then 'moved_on'
      when ${isUncovered(EXP)} then 'uncovered'
      else 'replay' end as outcome
    from held
    cross join lateral (select ${now} as t where held.id is not null) now
    join ${customers} as ${c} on ${c.id} = held.customer_id and ${c.state} = 'active'
    cross join lateral (select ${policyColumns(c)}) as policy
    join ${signingKeys} as ${a} on ${a.customerId} = ${c.id} and ${a.use} = 'access' and ${a.state} = 'current'
    left join ${subjectEpochs} as ${e} on ${e.customerId} = held.customer_id and ${e.subject} = held.subject
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
  select ${sessionColumns('decided')}, outcome, raise_due and outcome = 'replay' as "raiseDue", ${seconds(sql`t`)} as "issuedAt",
    access_version as "accessVersion" from decided`)
