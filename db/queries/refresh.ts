import { statement } from '../statement.ts'
import { type AuditContext, auditedAs, OF_EACH_ROW, typeBy } from './audit.ts'
import { type Acts, AFTER_DEATH, EVERYONES_EPOCH, PUBLISHED, publishing } from './change-feed.ts'
import { type Defaults, narrowed, ruling } from './policy.ts'
import { type SessionRow, seconds, sessionRow } from './sessions.ts'

export const REFRESH_OUTCOMES = ['rotate', 'replay', 'adopt', 'reuse', 'ended', 'disabled', 'scope'] as const
export type RefreshOutcome = (typeof REFRESH_OUTCOMES)[number]

export interface Refreshed extends SessionRow {
  /** Which of the acts that share the statement it is. */
  n: number
  outcome: RefreshOutcome
  issuedAt: number
  accessVersion: number
}

export interface Refresh {
  customerId: string
  sessionId: string
  /** The generation of the token presented. */
  gen: number
  /** The narrower scope asked for, or undefined. */
  scope: string | undefined
  tokenId: string
  origin: AuditContext
}

/** As JSON, for refreshSessions. */
export const refreshesOf = (asked: Refresh[]) =>
  JSON.stringify(
    asked.map(({ customerId, sessionId, gen, scope, tokenId, origin }, n) => ({
      n,
      customer_id: customerId,
      session_id: sessionId,
      presented_gen: gen,
      asked_scope: scope,
      token_id: tokenId,
      actor: origin.actor,
      ip: origin.ip,
      user_agent: origin.userAgent,
    })),
  )

/** What a refresh is judged by, of all that share a statement. */
export interface RefreshRules extends Defaults {
  /** Seconds. */
  grace: number
}

/**
 * Refreshes, each of another session (acts: refreshesOf): the row's lock, the verdict, what follows from it and its audit
 * row, in one statement. The verdict's time is taken after the row's lock. What it reads of customers and epochs may be
 * as old as the statement's wait; a token issued meanwhile carries the session's own epochs, and is dead on arrival.
 * `alone`: one act, which may wait for its row, and for the change feed if it ends its session.
 */
const refreshing = (alone: boolean) => `
  with asked as materialized (
    select * from jsonb_to_recordset(:acts::text::jsonb) as asked (
      n int, customer_id text, session_id text, presented_gen int, asked_scope text, token_id text,
      actor text, ip text, user_agent text)
  ),
  presented as materialized (
    select s.*, n, presented_gen, asked_scope, token_id, actor, ip, user_agent
    from (select * from asked order by customer_id, session_id) as ordered
    cross join lateral (
      select customer_id, id, subject, scope, customer_epoch, subject_epoch, gen, rotated_at, prev_rotated_at,
        confirmed_at, expires_at, ends_at, revoked_at
      from assay.sessions
      where sessions.customer_id = ordered.customer_id and sessions.id = ordered.session_id
      for update ${alone ? '' : 'skip locked'}
    ) as s
  ),
  timed as materialized (select presented.*, assay.now() as t from presented),
  weighed as materialized (
    select s.*, access_version, refresh_version, allowed_scopes, most_ttl, refresh_ttl, case
      when s.revoked_at is not null or s.expires_at <= t or s.ends_at <= t or epoch > s.customer_epoch
        or coalesce((select e.epoch from assay.subject_epochs e
          where e.customer_id = s.customer_id and e.subject = s.subject), 0) > s.subject_epoch then 'ended'
      when state <> 'active' then 'disabled'
      when presented_gen = s.gen then 'rotate'
      when presented_gen > s.gen then 'adopt'
      when refresh_policy = 'strict' then 'reuse'
      when presented_gen = s.gen - 1 and (
        t < s.rotated_at + make_interval(secs => :grace)
        or refresh_policy = 'until_confirmed'
          and (s.confirmed_at is null or t < s.confirmed_at + make_interval(secs => :grace))) then 'replay'
      when presented_gen = s.gen - 2 and t < s.prev_rotated_at + make_interval(secs => :grace) then 'replay'
      else 'reuse' end as verdict
    from timed s
    cross join lateral (
      -- By its id for each, whatever the planner guesses of how many there are.
      select c.state, greatest(c.epoch, ${EVERYONES_EPOCH}) as epoch, a.version as access_version, r.version as refresh_version, ${ruling('c')}
      from assay.customers c
      join assay.signing_keys a on a.customer_id = c.id and a.use = 'access' and a.state = 'current'
      join assay.signing_keys r on r.customer_id = c.id and r.use = 'refresh' and r.state = 'current'
      where c.id = s.customer_id
      offset 0
    ) as current
  ),
  judged as materialized (
    -- Last, so that asking for too much never hides a reuse.
    select weighed.*, case when verdict in ('rotate', 'replay', 'adopt')
      and not string_to_array(asked_scope, ' ') <@ string_to_array(${narrowed('scope', 'allowed_scopes')}, ' ') then 'scope' else verdict end as outcome
    from weighed
  ),
  rotated as (
    update assay.sessions s set
      gen = j.presented_gen + 1, rotated_at = j.t, prev_rotated_at = s.rotated_at, confirmed_at = null,
      key_version = j.refresh_version, prev_key_version = s.key_version,
      expires_at = least(j.t + make_interval(secs => j.refresh_ttl), s.ends_at),
      access_until = greatest(s.access_until,
        least(j.t + make_interval(secs => least(s.access_ttl, j.most_ttl, j.refresh_ttl)), s.ends_at))
    from judged j
    where s.customer_id = j.customer_id and s.id = j.id and j.outcome in ('rotate', 'adopt')
    returning s.*
  ),
  replayed as (
    update assay.sessions s
    set access_until = greatest(s.access_until,
      least(j.t + make_interval(secs => least(s.access_ttl, j.most_ttl)), s.expires_at))
    from judged j where s.customer_id = j.customer_id and s.id = j.id and j.outcome = 'replay'
    returning s.*
  ),
  audited as (${auditedAs(
    typeBy('outcome', {
      rotate: 'session.refreshed',
      replay: 'session.replayed',
      adopt: 'session.adopted',
      reuse: 'session.reuse_detected',
    }),
    `judged where outcome in ('rotate', 'replay', 'adopt'${alone ? `, 'reuse'` : ''})`,
    {
      subject: 'subject',
      session: 'id',
      token: `case when outcome <> 'reuse' then token_id end`,
      detail: `json_build_object('presented', presented_gen, 'current', gen,
        'late', outcome = 'replay' and t >= rotated_at + make_interval(secs => :grace),
        'severity', case outcome when 'adopt' then 'critical' when 'reuse' then 'warning' else 'info' end)::text`,
      ...OF_EACH_ROW,
    },
  )}),
  ${alone ? `${ENDING},` : ''}
  after as (select * from rotated union all select * from replayed)
  select n, ${sessionRow('j')}, j.outcome, ${seconds('j.t')} as "issuedAt", j.access_version as "accessVersion"
    ${alone ? `, ${PUBLISHED}` : ''}
  from (select n, customer_id as of_customer, id as of_session, t, outcome, access_version, allowed_scopes, most_ttl
    from judged) j
  left join after on after.customer_id = of_customer and after.id = of_session`

/** What becomes of a session whose token is reused. */
const ENDING = `
  ended as (
    update assay.sessions s set revoked_at = j.t
    from judged j where s.customer_id = j.customer_id and s.id = j.id and j.outcome = 'reuse'
    returning s.*
  ),
  narrowed as (
    select 'session' as kind, customer_id, id as key, 0 as epoch, access_until + ${AFTER_DEATH} as dead_after from ended
  ),
  ${publishing(['audited'])}`

/**
 * Those that neither wait nor end anything: nobody waits for another's row, and none touches the change feed. No row: it is not
 * there, or locked. One that is judged `reuse` has changed nothing. Both are for refreshSession.
 */
export const refreshSessions = statement('refreshSessions')<Acts & RefreshRules, Refreshed>(refreshing(false))

/** One refresh, whatever comes of it (acts: one). No row: no such session, or no such customer. */
export const refreshSession = statement('refreshSession')<
  Acts & RefreshRules,
  Refreshed & { seq: number | null }
>(refreshing(true))
