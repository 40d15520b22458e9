import { insertInto } from '../columns.ts'
import { alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { apiKeys } from '../schema/api-keys.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { sessions } from '../schema/sessions.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { type AuditContext, type AuditType, auditInsertOfEach } from './audit.ts'
import { type Acts, EVERYONES_EPOCH } from './change-feed.ts'
import { customerWithKeys } from './customer-keys.ts'
import { isRaiseDue, isUncovered } from './issued-until.ts'
import { allowedScopes, type Defaults, policyColumns } from './policy.ts'
import { seconds } from './sessions.ts'

const ACCESS_TTL = sql`least(coalesce(expires_in, usual_ttl), most_ttl)`
const EXP = sql`t + make_interval(secs => ${ACCESS_TTL})`

/** The lifetimes and the scope of a token or session that begins at `t`, by the policyColumns of its customer. */
export const limitColumns = sql`
  ${ACCESS_TTL} as access_ttl, most_ttl,
  t + make_interval(secs => least(refresh_ttl, session_ttl)) as expires_at,
  t + make_interval(secs => session_ttl) as ends_at,
  ${allowedScopes(sql`asked_scope`, sql`allowed_scopes`)} as scope, allowed_scopes`

/** A request for an explicit scope or lifetime is granted whole or not at all. */
const refusedColumn = sql`case
  when expires_in > most_ttl then 'expires_in'
  when exact and allowed_scopes is not null
    and ${allowedScopes(sql`asked_scope`, sql`allowed_scopes`)} <> asked_scope then 'scope'
  when ${isUncovered(EXP)} then 'uncovered'
  end as refused`

/** The part `requests`: one row for each act that shares the statement. */
export const requestsPart = sql`
  requests as materialized (
    select * from jsonb_to_recordset(${param('acts')}::text::jsonb) as request (
      n int, customer_id text, subject text, asked_scope text, exact boolean, type text, token_id text, api_key_id text,
      expires_in int, session_id text, audience text, claims text, actor text, ip text, user_agent text)
  )`

const { c, a, r } = customerWithKeys
const e = alias(subjectEpochs, 'e')
const k = alias(apiKeys, 'k')
const before = alias(customers, 'before')

/**
 * The customer of each request, if it is active, with its current keys and its policy. Each is looked up by its id,
 * which `offset 0` enforces: for the number of requests that the planner estimates, it would scan a table that was
 * small when the statement was planned.
 */
const currentCustomer = ({ condition = sql``, lock }: GrantOptions) => sql`cross join lateral (
      select greatest(${c.epoch}, ${EVERYONES_EPOCH}) as customer_epoch, ${a.version} as access_version,
        ${r.version} as refresh_version, ${(lock ? before : c).issuedUntil}, ${policyColumns(c)}
      ${customerWithKeys.from} ${lock ? JOIN_SNAPSHOT : sql``}
      where ${c.id} = requests.customer_id and ${c.state} = 'active' ${condition}
      offset 0 ${lock ? sql`for share of ${c}` : sql``}
    ) as current`

/**
 * A lock reads the latest version of a row, but `issued_until` must not be newer than the subject's epoch, which is the
 * snapshot's.
 */
const JOIN_SNAPSHOT = sql`join ${customers} as ${before} on ${before.id} = ${c.id}`

interface GrantOptions {
  condition?: SQL
  /** Locks the customer's row. */
  lock?: boolean
}

/**
 * Checks the customer, the subject's epoch and the API key of each request.
 *
 * 1. `clock` is the time of all.
 * 2. `requests` are the requests of the acts.
 * 3. `grants` has one row for each request, or none. The customer's policy or `issued_until` may have `refused` it.
 */
export const grantParts = (options: GrantOptions = {}) => sql`
  clock as materialized (select ${now} as t), ${requestsPart},
  grants as materialized (
    select requests.*, customer_epoch, access_version, refresh_version, t, ${isRaiseDue(EXP)} as raise_due,
      ${limitColumns}, ${refusedColumn}, coalesce(
      (select ${e.epoch} from ${subjectEpochs} as ${e}
        where ${e.customerId} = requests.customer_id and ${e.subject} = requests.subject),
      0) as subject_epoch
    from clock
    cross join requests
    ${currentCustomer(options)}
    where api_key_id is null or exists (
      select from ${apiKeys} as ${k}
      where ${k.id} = api_key_id and ${k.customerId} = requests.customer_id
        and (${k.expiresAt} is null or ${k.expiresAt} > t))
  )`

export const ALLOWED = 'grants where refused is null'

/** Inserts the sessions that begin, from a part with the columns of `grants`. */
export const sessionInsert = (from: string) => sql`
  ${insertInto(
    sessions,
    'customerId',
    'id',
    'subject',
    'scope',
    'audience',
    'claims',
    'accessTtl',
    'customerEpoch',
    'subjectEpoch',
    'issuedAt',
    'rotatedAt',
    'keyVersion',
    'accessUntil',
    'expiresAt',
    'endsAt',
    'ip',
    'userAgent',
  )}
  select customer_id, session_id, subject, scope, audience, claims, access_ttl, customer_epoch, subject_epoch, t, t,
    refresh_version, least(t + make_interval(secs => access_ttl), expires_at), expires_at, ends_at, ip, user_agent
  from ${sql.raw(from)}
  returning 1`

/** The columns of an IssueResult. */
export const issueColumns = sql`n, access_version as "accessVersion", refresh_version as "refreshVersion",
  ${seconds(sql`t`)} as "issuedAt", ${seconds(sql`expires_at`)} as "expiresAt",
  ${seconds(sql`ends_at`)} as "endsAt", customer_epoch as "customerEpoch", subject_epoch as "subjectEpoch",
  access_ttl as "accessTtl", most_ttl as "mostTtl", scope, allowed_scopes as "allowedScopes", refused,
  raise_due and refused is null as "raiseDue"`

export interface NewToken extends AuditContext {
  customerId: string
  subject: string
  /** RFC 6749 3.3. `exact` means that the request named the scope explicitly. */
  scope: string
  exact: boolean
  type: AuditType
  tokenId: string
  /** The API key that authenticated the request. It must still exist. */
  apiKeyId: string | undefined
  /** Seconds. If undefined, the customer's default applies. */
  expiresIn: number | undefined
}

export interface NewSession extends NewToken {
  sessionId: string
  /** JSON. */
  audience: string
  /** JSON. */
  claims: string | undefined
}

/** As JSON, for `requestsPart`. */
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
      claims: each.claims,
      actor: each.actor,
      ip: each.ip,
      user_agent: each.userAgent,
    })),
  )

/** The decisions of the issuing statement: key versions to sign with, and times as NumericDates. */
export interface IssueResult {
  /** The number of the act among those that share the statement. */
  n: number
  accessVersion: number
  refreshVersion: number
  issuedAt: number
  expiresAt: number
  endsAt: number
  customerEpoch: number
  subjectEpoch: number
  /** Seconds. */
  accessTtl: number
  scope: string
  /**
   * Nothing was issued. The request exceeded the `mostTtl` or `allowedScopes` of the customer's policy; or the token is
   * `uncovered`, and the act must be repeated after raiseIssuedUntil.
   */
  refused: 'expires_in' | 'scope' | 'uncovered' | null
  /** Whether the token was issued and raiseIssuedUntil is due before the next one. */
  raiseDue: boolean
  mostTtl: number
  allowedScopes: string | null
}

/**
 * Issues access tokens without a session. Only the audit event of such a token stores its lifetime. No row: that
 * act's customer, or API key, is not active.
 */
export const insertTokens = prepared('insertTokens')<Acts & Defaults, IssueResult>(sql`
  with ${grantParts()},
  audited as (${auditInsertOfEach(sql`type`, ALLOWED, {
    subject: sql`subject`,
    token: sql`token_id`,
    detail: sql`json_build_object('scope', scope, 'expires_in', access_ttl)::text`,
  })})
  select ${issueColumns} from grants`)

export const auditSessionStart = (from: string) =>
  auditInsertOfEach(sql`type`, from, {
    subject: sql`subject`,
    session: sql`session_id`,
    token: sql`token_id`,
    detail: sql`json_build_object('scope', scope)::text`,
  })

/** Starts sessions. No row: that act's customer, or API key, is not active. */
export const insertSessions = prepared('insertSessions')<Acts & Defaults, IssueResult>(sql`
  with ${grantParts()}, started as (${sessionInsert(ALLOWED)}), audited as (${auditSessionStart(ALLOWED)})
  select ${issueColumns} from grants`)

/**
 * Starts the session of a login, unless the password has changed since it was checked. A lock on the
 * customer's row serialises it with password changes. No row: the password has changed, or the customer is
 * not active.
 */
export const insertLogin = prepared('insertLogin')<
  Acts & Defaults & { passwordHash: string },
  IssueResult
>(sql`
  with ${grantParts({ condition: sql`and ${c.passwordHash} = ${param('passwordHash')}`, lock: true })},
  started as (${sessionInsert(ALLOWED)}), audited as (${auditSessionStart(ALLOWED)})
  select ${issueColumns} from grants`)
