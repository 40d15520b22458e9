import { bare } from '../columns.ts'
import { alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { sessions } from '../schema/sessions.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { type AuditContext, auditInsertOfEach, typeBy } from './audit.ts'
import { type Acts, EVERYONES_EPOCH, publishedColumns, publishParts, SESSION_END } from './change-feed.ts'
import { customerWithKeys } from './customer-keys.ts'
import { isRaiseDue, isUncovered } from './issued-until.ts'
import { allowedScopes, type Defaults, policyColumns } from './policy.ts'
import { type SessionRow, seconds, sessionColumns } from './sessions.ts'

export const REFRESH_OUTCOMES = [
  'rotate',
  'renew',
  'replay',
  'adopt',
  'reuse',
  'ended',
  'disabled',
  'scope',
  'target',
] as const
export type RefreshOutcome = (typeof REFRESH_OUTCOMES)[number]

export interface RefreshResult extends SessionRow {
  /** The number of the act among those that share the statement. */
  n: number
  /** `uncovered`: nothing was changed, and the refresh must be repeated after raiseIssuedUntil. */
  outcome: RefreshOutcome | 'uncovered'
  /** Whether a token was issued and raiseIssuedUntil is due before the next one. */
  raiseDue: boolean
  issuedAt: number
  accessVersion: number
}

export interface Refresh {
  customerId: string
  sessionId: string
  /** The generation of the token presented, and the version of the signing key that signed it. */
  gen: number
  keyVersion: number
  /** Whether the request has a credential of the session's customer. */
  authenticated: boolean
  /** Whether the client was seen with the next generation. The session's row may not have this yet. */
  successorSeen: boolean
  /** The requested narrower scope, or undefined. */
  scope: string | undefined
  /** The requested narrower audience, or undefined. */
  audience: string | string[] | undefined
  tokenId: string
  origin: AuditContext
}

/** As JSON, for refreshSessions. */
export const refreshesOf = (asked: Refresh[]) =>
  JSON.stringify(
    asked.map((each, n) => ({
      n,
      customer_id: each.customerId,
      session_id: each.sessionId,
      presented_gen: each.gen,
      presented_version: each.keyVersion,
      authenticated: each.authenticated,
      successor_seen: each.successorSeen,
      asked_scope: each.scope,
      asked_audience: each.audience,
      token_id: each.tokenId,
      actor: each.origin.actor,
      ip: each.origin.ip,
      user_agent: each.origin.userAgent,
    })),
  )

/** The settings that apply to every refresh of a statement. */
export interface RefreshRules extends Defaults {
  /** Seconds. */
  grace: number
}

const s = alias(sessions, 's')
const e = alias(subjectEpochs, 'e')
const { c, a, r } = customerWithKeys

/**
 * The columns of a session's generation after a refresh `d`; with `renew` they keep the row's values. A kept token that is ahead
 * of the row (`adopt`) becomes the current one. The key that signed the presented token stays referenced. Otherwise it could be
 * retired while a client holds that token. `prev_rotated_at` is null if `strict` left the previous token no grace.
 */
const GENERATION = sql`${bare(s.gen)} = case when d.keeps then d.presented_gen else d.presented_gen + 1 end,
      ${bare(s.rotatedAt)} = case d.outcome when 'renew' then ${s.rotatedAt} else d.t end,
      ${bare(s.prevRotatedAt)} = case when d.outcome = 'renew' then ${s.prevRotatedAt}
        when d.refresh_policy <> 'strict' and ${s.confirmedAt} is distinct from '-infinity' then ${s.rotatedAt} end,
      ${bare(s.confirmedAt)} = case when d.outcome = 'renew' then coalesce(${s.confirmedAt}, d.t)
        when d.keeps or d.refresh_policy = 'grace_only' then d.t when d.refresh_policy = 'strict' then '-infinity' end,
      ${bare(s.renewedAt)} = case when d.keeps then d.t else ${s.renewedAt} end,
      ${bare(s.keyVersion)} = case when d.keeps then d.presented_version else d.refresh_version end,
      ${bare(s.prevKeyVersion)} = case when not d.keeps then d.presented_version
        when d.presented_version <> ${s.keyVersion} then ${s.keyVersion} else ${s.prevKeyVersion} end`

/**
 * The parts of both statements below: the row's lock, the verdict, its effects and its audit event. They may read customers and
 * epochs as old as the statement's wait; a token that is issued in that time has the session's own epochs, and is already
 * revoked. `alone`: one act, which may wait for its row, and for the change feed if it ends its session.
 *
 * 1. `requests` are the refreshes, each of another session.
 * 2. `locked` locks their sessions, in one order.
 * 3. `timed` adds the time, which is taken after the lock.
 * 4. `checked` adds the customer's state, keys and policy, and the verdict by generation, time and epochs. The customer is looked
 *    up by its id for each, which `offset 0` enforces regardless of the planner's estimate of their number. An authenticated
 *    client under the policy `reusable` `keeps` its token. Without authentication that policy works like `until_confirmed`: only
 *    rotation can detect the theft of a public client's token (RFC 9700 4.14.2).
 * 5. `decided` refuses a scope that is too wide, and a session if the policy leaves it no scope: an answer without `scope` would
 *    mean the whole requested scope (RFC 6749 5.1). It also refuses an audience that the session does not have; `'[]' ||` turns a
 *    single audience into a list. This check comes late, so that requesting too much never hides a reuse. Whether a token is
 *    `uncovered` depends on its exp after the lock. The customer is as old as the snapshot, and so no newer than the epochs.
 * 6. `refreshed` and `replayed` change the sessions accordingly, and `audited` notes it. A replay also confirms a successor that
 *    was seen, so that no flood of replays keeps that from being written.
 * 7. `ended` ends a session whose token was used again, if `alone`.
 * 8. `after` are the sessions as they are then.
 */
const refreshSql = (alone: boolean): SQL => sql`
  with requests as materialized (
    select * from jsonb_to_recordset(${param('acts')}::text::jsonb) as request (
      n int, customer_id text, session_id text, presented_gen int, presented_version int, authenticated boolean,
      successor_seen boolean, asked_scope text, asked_audience jsonb, token_id text, actor text, ip text, user_agent text)
  ),
  locked as materialized (
    select s.*, n, presented_gen, presented_version, authenticated, successor_seen, asked_scope, asked_audience, token_id,
      actor, ip, user_agent
    from (select * from requests order by customer_id, session_id) as ordered
    cross join lateral (
      select ${sessions.customerId}, ${sessions.id}, ${sessions.subject}, ${sessions.scope}, ${sessions.audience},
        ${sessions.customerEpoch}, ${sessions.subjectEpoch}, ${sessions.gen}, ${sessions.rotatedAt}, ${sessions.prevRotatedAt},
        ${sessions.confirmedAt}, ${sessions.expiresAt}, ${sessions.endsAt}, ${sessions.revokedAt}, ${sessions.accessTtl}
      from ${sessions}
      where ${sessions.customerId} = ordered.customer_id and ${sessions.id} = ordered.session_id
      for update ${alone ? sql`` : sql`skip locked`}
    ) as s
  ),
  timed as materialized (select locked.*, ${now} as t from locked),
  checked as materialized (
    select ${s}.*, access_version, refresh_version, allowed_scopes, most_ttl, refresh_ttl, refresh_policy, keeps, issued_until,
      t + make_interval(secs => least(${s.accessTtl}, most_ttl)) as exp, case
      when ${s.revokedAt} is not null or ${s.expiresAt} <= t or ${s.endsAt} <= t or epoch > ${s.customerEpoch}
        or coalesce((select ${e.epoch} from ${subjectEpochs} as ${e}
          where ${e.customerId} = ${s.customerId} and ${e.subject} = ${s.subject}), 0) > ${s.subjectEpoch} then 'ended'
      when state <> 'active' then 'disabled'
      when presented_gen = ${s.gen} then case when keeps then 'renew' else 'rotate' end
      when presented_gen > ${s.gen} then 'adopt'
      when refresh_policy = 'strict' then 'reuse'
      when presented_gen = ${s.gen} - 1
        and coalesce(t < grace_from + make_interval(secs => ${param('grace')}), true) then 'replay'
      when presented_gen = ${s.gen} - 2 and t < ${s.prevRotatedAt} + make_interval(secs => ${param('grace')}) then 'replay'
      else 'reuse' end as verdict
    from timed as ${s}
    cross join lateral (
      select ${c.state}, greatest(${c.epoch}, ${EVERYONES_EPOCH}) as epoch, ${a.version} as access_version,
        ${r.version} as refresh_version, ${c.issuedUntil}, ${policyColumns(c)}
      ${customerWithKeys.from}
      where ${c.id} = ${s.customerId}
      offset 0
    ) as current
    cross join lateral (
      select refresh_policy = 'reusable' and authenticated as keeps,
        case refresh_policy when 'grace_only' then least(${s.confirmedAt}, ${s.rotatedAt}) else ${s.confirmedAt} end as grace_from
    ) as ruled
  ),
  decided as materialized (
    select checked.*, ${isRaiseDue(sql`exp`)} as raise_due, case
      when verdict not in ('rotate', 'renew', 'replay', 'adopt') then verdict
      when scope <> '' and remaining = '' then 'scope'
      when not string_to_array(asked_scope, ' ') <@ string_to_array(remaining, ' ') then 'scope'
      when not ('[]' || asked_audience) <@ ('[]' || audience::jsonb) then 'target'
      when ${isUncovered(sql`exp`)} then 'uncovered'
      else verdict end as outcome
    from checked
    cross join lateral (select ${allowedScopes(sql`scope`, sql`allowed_scopes`)} as remaining) as narrowed
  ),
  refreshed as (
    update ${sessions} as ${s} set
      ${GENERATION},
      ${bare(s.expiresAt)} = least(d.t + make_interval(secs => d.refresh_ttl), ${s.endsAt}),
      ${bare(s.accessUntil)} = greatest(${s.accessUntil},
        least(d.t + make_interval(secs => least(${s.accessTtl}, d.most_ttl, d.refresh_ttl)), ${s.endsAt}))
    from decided as d
    where ${s.customerId} = d.customer_id and ${s.id} = d.id and d.outcome in ('rotate', 'renew', 'adopt')
    returning s.*
  ),
  replayed as (
    update ${sessions} as ${s} set ${bare(s.accessUntil)} = greatest(${s.accessUntil},
      least(d.t + make_interval(secs => least(${s.accessTtl}, d.most_ttl)), ${s.expiresAt})),
      ${bare(s.confirmedAt)} = coalesce(${s.confirmedAt},
        case when d.successor_seen and d.presented_gen = ${s.gen} - 1 then d.t end)
    from decided as d where ${s.customerId} = d.customer_id and ${s.id} = d.id and d.outcome = 'replay'
    returning s.*
  ),
  audited as (${auditRefreshes(alone)}),
  ${alone ? sql`${endReusedParts},` : sql``}
  after as (select * from refreshed union all select * from replayed)
  select n, ${sessionColumns('d')}, d.outcome, ${seconds(sql`d.t`)} as "issuedAt", d.access_version as "accessVersion",
    raise_due and after.id is not null as "raiseDue"
    ${alone ? sql`, ${publishedColumns}` : sql``}
  from (select n, customer_id as of_customer, id as of_session, t, outcome, access_version, raise_due, allowed_scopes, most_ttl
    from decided) as d
  left join after on after.customer_id = of_customer and after.id = of_session`

/** The event of each refresh that changed something. A shared statement does not change a session whose token was reused. */
const auditRefreshes = (alone: boolean) =>
  auditInsertOfEach(
    typeBy(sql`outcome`, {
      rotate: 'session.refreshed',
      renew: 'session.refreshed',
      replay: 'session.replayed',
      adopt: 'session.adopted',
      reuse: 'session.reuse_detected',
    }),
    `decided where outcome in ('rotate', 'renew', 'replay', 'adopt'${alone ? `, 'reuse'` : ''})`,
    {
      subject: sql`subject`,
      session: sql`id`,
      token: sql`case when outcome <> 'reuse' then token_id end`,
      detail: sql`json_build_object('presented', presented_gen, 'current', gen,
        'late', outcome = 'replay' and t >= rotated_at + make_interval(secs => ${param('grace')}),
        'severity', case outcome when 'adopt' then 'critical' when 'reuse' then 'warning' else 'info' end)::text`,
    },
  )

/** Ends a session whose token was used again, and publishes it. */
const endReusedParts = sql`
  ended as (
    update ${sessions} as ${s} set ${bare(s.revokedAt)} = d.t
    from decided as d where ${s.customerId} = d.customer_id and ${s.id} = d.id and d.outcome = 'reuse'
    returning s.*
  ),
  ${publishParts('session', 'ended', ['audited'], SESSION_END)}`

/**
 * Refreshes sessions without waiting for locked rows or ending a session: no refresh delays another, and the change
 * feed stays untouched. No row: the session is not there, or locked. The outcome `reuse` has changed nothing;
 * refreshSession handles it.
 */
export const refreshSessions = prepared('refreshSessions')<Acts & RefreshRules, RefreshResult>(
  refreshSql(false),
)

/** One refresh with any outcome (acts: one). No row: no such session, or no such customer. */
export const refreshSession = prepared('refreshSession')<
  Acts & RefreshRules,
  RefreshResult & { seq: number | null }
>(refreshSql(true))
