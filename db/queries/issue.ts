import { statement } from '../statement.ts'
import { type AuditContext, type AuditType, auditedAs, OF_EACH_ROW } from './audit.ts'
import { type Acts, EVERYONES_EPOCH } from './change-feed.ts'
import { type Defaults, narrowed, ruling } from './policy.ts'
import { type SessionRow, seconds, sessionRow } from './sessions.ts'

/** How long what begins at `t` lives, and the most that it may carry, by what rules its customer. */
export const LIMITS = `
  least(coalesce(expires_in, usual_ttl), most_ttl) as access_ttl, most_ttl,
  t + make_interval(secs => least(refresh_ttl, session_ttl)) as expires_at,
  t + make_interval(secs => session_ttl) as ends_at,
  ${narrowed('asked_scope', 'allowed_scopes')} as scope, allowed_scopes`

/** What was asked for in so many words is given whole or not at all. */
export const REFUSED = `case
  when expires_in > most_ttl then 'expires_in'
  when exact and allowed_scopes is not null and ${narrowed('asked_scope', 'allowed_scopes')} <> asked_scope then 'scope'
  end as refused`

/** What is asked for, one act a row: several may share a statement. */
export const ASKED = `
  asked as materialized (
    select * from jsonb_to_recordset(:acts::text::jsonb) as asked (
      n int, customer_id text, subject text, asked_scope text, exact boolean, type text, token_id text, api_key_id text,
      expires_in int, session_id text, audience text, ext text, actor text, ip text, user_agent text)
  )`

/**
 * Each act's customer, if it is active, with its current keys. Looked up by its id for each (`offset 0` keeps it so): for
 * as many acts as the planner guesses, it would read a table that was small when the statement was planned.
 */
const currentOf = (acts: string, condition: string, lock: string) => `cross join lateral (
      select greatest(c.epoch, ${EVERYONES_EPOCH}) as customer_epoch, a.version as access_version, r.version as refresh_version, ${ruling('c')}
      from assay.customers c
      join assay.signing_keys a on a.customer_id = c.id and a.use = 'access' and a.state = 'current'
      join assay.signing_keys r on r.customer_id = c.id and r.use = 'refresh' and r.state = 'current'
      where c.id = ${acts}.customer_id and c.state = 'active' ${condition}
      offset 0 ${lock}
    ) as current`

/**
 * What must hold of the customer, the subject's epoch and the API key for anything to be issued; one row for each, or none.
 * The customer's policy may have `refused` it.
 */
const entitled = (condition = '', lock = '') => `
  clock as materialized (select assay.now() as t), ${ASKED},
  entitled as materialized (
    select asked.*, customer_epoch, access_version, refresh_version, t, ${LIMITS}, ${REFUSED}, coalesce(
      (select epoch from assay.subject_epochs e where e.customer_id = asked.customer_id and e.subject = asked.subject),
      0) as subject_epoch
    from clock
    cross join asked
    ${currentOf('asked', condition, lock)}
    where api_key_id is null or exists (
      select from assay.api_keys k
      where k.id = api_key_id and k.customer_id = asked.customer_id and (k.expires_at is null or k.expires_at > t))
  )`

const ALLOWED = 'entitled where refused is null'

/** The rows of sessions that begin with what `from` says of their customers. */
export const starting = (from: string) => `
  insert into assay.sessions (customer_id, id, subject, scope, audience, ext, access_ttl, customer_epoch,
    subject_epoch, issued_at, rotated_at, key_version, access_until, expires_at, ends_at, ip, user_agent)
  select customer_id, session_id, subject, scope, audience, ext, access_ttl, customer_epoch, subject_epoch, t, t,
    refresh_version, least(t + make_interval(secs => access_ttl), expires_at), expires_at, ends_at, ip, user_agent
  from ${from}
  returning 1`

/** The columns of an Issued. */
export const ISSUED = `n, access_version as "accessVersion", refresh_version as "refreshVersion", ${seconds('t')} as "issuedAt",
  ${seconds('expires_at')} as "expiresAt", customer_epoch as "customerEpoch", subject_epoch as "subjectEpoch",
  access_ttl as "accessTtl", most_ttl as "mostTtl", scope, allowed_scopes as "allowedScopes", refused`

export interface NewToken extends AuditContext {
  customerId: string
  subject: string
  /** RFC 6749 3.3; `exact`: asked for in so many words. */
  scope: string
  exact: boolean
  type: AuditType
  tokenId: string
  /** The API key that asked, which must still be there. */
  apiKeyId: string | undefined
  /** Seconds; undefined: as is usual for the customer. */
  expiresIn: number | undefined
}

export interface NewSession extends NewToken {
  sessionId: string
  /** JSON. */
  audience: string
  /** JSON. */
  ext: string | undefined
}

/** As JSON, for ASKED. */
export const actsOf = (asked: (NewToken & Partial<NewSession>)[]) =>
  JSON.stringify(
    asked.map((each, n) => ({
      n,
      customer_id: each.customerId,
      subject: each.subject,
      asked_scope: each.scope,
      exact: each.exact,
      type: each.type,
      token_id: each.tokenId,
      api_key_id: each.apiKeyId,
      expires_in: each.expiresIn,
      session_id: each.sessionId,
      audience: each.audience,
      ext: each.ext,
      actor: each.actor,
      ip: each.ip,
      user_agent: each.userAgent,
    })),
  )

/** What the issuing statement decided: key versions to sign with, and times as NumericDates. */
export interface Issued {
  /** Which of the acts that share the statement it is. */
  n: number
  accessVersion: number
  refreshVersion: number
  issuedAt: number
  expiresAt: number
  customerEpoch: number
  subjectEpoch: number
  /** Seconds. */
  accessTtl: number
  scope: string
  /** By the customer's policy: nothing was issued, for more was asked than `mostTtl` or `allowedScopes`. */
  refused: 'expires_in' | 'scope' | null
  mostTtl: number
  allowedScopes: string | null
}

/**
 * Issues access tokens that belong to no session: nothing but its audit row knows how long one lives. No row: that act's
 * customer, or API key, is not active.
 */
export const insertTokens = statement('insertTokens')<Acts & Defaults, Issued>(`
  with ${entitled()},
  audited as (${auditedAs('type', ALLOWED, {
    subject: 'subject',
    token: 'token_id',
    detail: `json_build_object('scope', scope, 'expires_in', access_ttl)::text`,
    ...OF_EACH_ROW,
  })})
  select ${ISSUED} from entitled`)

const auditedStart = (from: string) =>
  auditedAs('type', from, {
    subject: 'subject',
    session: 'session_id',
    token: 'token_id',
    detail: `json_build_object('scope', scope)::text`,
    ...OF_EACH_ROW,
  })

/** Starts sessions. No row: that act's customer, or API key, is not active. */
export const insertSessions = statement('insertSessions')<Acts & Defaults, Issued>(`
  with ${entitled()}, started as (${starting(ALLOWED)}), audited as (${auditedStart(ALLOWED)})
  select ${ISSUED} from entitled`)

/**
 * Starts the session of a login, unless the password was changed since it was checked: who changes it waits for this, or
 * this for them. No row: it was, or the customer is not active.
 */
export const insertLogin = statement('insertLogin')<Acts & Defaults & { passwordHash: string }, Issued>(`
  with ${entitled('and c.password_hash = :passwordHash', 'for share of c')},
  started as (${starting(ALLOWED)}), audited as (${auditedStart(ALLOWED)})
  select ${ISSUED} from entitled`)

/**
 * Starts a session unless the Idempotency-Key holds one already (`claimed` false). A key that is being claimed by a
 * concurrent request is waited for by the conflict check.
 */
export const insertSessionOnce = statement('insertSessionOnce')<
  Acts & Defaults & { keyDigest: Uint8Array; requestDigest: Uint8Array },
  Issued & { claimed: boolean }
>(`
  with ${entitled()},
  claimed as (
    insert into assay.idempotency_keys as held (customer_id, key_digest, request_digest, session_id, expires_at)
    select customer_id, :keyDigest, :requestDigest, session_id, t + interval '10 minutes' from ${ALLOWED}
    on conflict (customer_id, key_digest) do update set request_digest = excluded.request_digest,
      session_id = excluded.session_id, expires_at = excluded.expires_at
    where held.expires_at <= assay.now()
    returning 1
  ),
  allowed as (select * from ${ALLOWED} and exists (select from claimed)),
  started as (${starting('allowed')}),
  audited as (${auditedStart('allowed')})
  select ${ISSUED}, exists (select from claimed) as claimed from entitled`)

/**
 * The session that an Idempotency-Key started, with a new access token for it: the answer to a retry. `outcome` is
 * `replay`, `other_request`, or `moved_on` once the session is no longer in its first generation.
 */
export const replayIssue = statement('replayIssue')<
  AuditContext &
    Defaults & { customerId: string; keyDigest: Uint8Array; requestDigest: Uint8Array; tokenId: string },
  SessionRow & { outcome: 'replay' | 'other_request' | 'moved_on'; issuedAt: number; accessVersion: number }
>(`
  with held as materialized (
    select s.*, i.request_digest
    from assay.idempotency_keys i
    join assay.sessions s on s.customer_id = i.customer_id and s.id = i.session_id
    where i.customer_id = :customerId and i.key_digest = :keyDigest
    for update of s
  ),
  judged as materialized (
    select held.*, now.t, a.version as access_version, ${ruling('c')}, case
      when held.request_digest <> :requestDigest then 'other_request'
      when held.gen <> 1 or held.revoked_at is not null or held.expires_at <= now.t
        or greatest(c.epoch, ${EVERYONES_EPOCH}) > held.customer_epoch or coalesce(e.epoch, 0) > held.subject_epoch then 'moved_on'
      else 'replay' end as outcome
    from held
    cross join lateral (select assay.now() as t where held.id is not null) now
    join assay.customers c on c.id = held.customer_id and c.state = 'active'
    join assay.signing_keys a on a.customer_id = c.id and a.use = 'access' and a.state = 'current'
    left join assay.subject_epochs e on e.customer_id = held.customer_id and e.subject = held.subject
  ),
  replayed as (
    update assay.sessions s
    set access_until = greatest(s.access_until, least(j.t + make_interval(secs => least(s.access_ttl, j.most_ttl)), s.expires_at))
    from judged j where s.customer_id = j.customer_id and s.id = j.id and j.outcome = 'replay'
  ),
  audited as (${auditedAs(`'session.replayed'`, `judged where outcome = 'replay'`, {
    subject: 'subject',
    session: 'id',
    token: ':tokenId::text',
  })})
  select ${sessionRow('judged')}, outcome, ${seconds('t')} as "issuedAt", access_version as "accessVersion" from judged`)
