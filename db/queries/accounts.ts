import { bare, insertInto, pick } from '../columns.ts'
import { alias, eq, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Params, query, type RowOf } from '../query.ts'
import { apiKeys } from '../schema/api-keys.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { sessions } from '../schema/sessions.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { type AuditContext, type AuditType, auditInsert, auditInsertOfEach } from './audit.ts'
import { type Acts, EVERYONES_EPOCH, publishedColumns, publishParts, SESSION_END } from './change-feed.ts'
import { type IssueResult, issueColumns, limitColumns, requestsPart, sessionInsert } from './issue.ts'
import { firstIssuedUntil } from './issued-until.ts'
import { consumedParts, type PresentedToken, withdrawnPart } from './one-time-tokens.ts'
import { type Defaults, policyColumns } from './policy.ts'

/** A customer that doesn't exist yet. */
export interface NewCustomer {
  customerId: string
  email: string
  name: string | undefined
  passwordHash: string
  sealedDataKey: Uint8Array
  sealedAccessSecret: Uint8Array
  sealedRefreshSecret: Uint8Array
  /** Undefined: it has no API key yet. */
  newApiKeyId: string | undefined
  apiKeyScope: string
  apiKeyDigest: Uint8Array
}

/**
 * Inserts a customer unless its email is taken, or `condition` is not met.
 *
 * 1. `inserted` is the customer with its data key, if it was inserted.
 * 2. `keyed` inserts its first two signing keys.
 * 3. `credentialed` inserts its first API key, if it has one.
 */
export const newCustomerParts = (condition = sql``, issuedUntil = sql`'-infinity'`) => sql`
  inserted as (
    ${insertInto(customers, 'id', 'email', 'name', 'passwordHash', 'sealedDataKey', 'apiKeys', 'createdAt', 'issuedUntil')}
    select ${param('customerId')}, ${param('email')}, ${param('name')}, ${param('passwordHash')},
      ${param('sealedDataKey')}, num_nonnulls(${param('newApiKeyId')}::text), ${now}, ${issuedUntil} ${condition}
    on conflict (${bare(customers.email)}) do nothing
    returning ${customers.id} as customer_id, ${customers.createdAt} as t
  ),
  keyed as (
    ${insertInto(signingKeys, 'customerId', 'use', 'version', 'state', 'alg', 'sealedSecret', 'createdAt')}
    select customer_id, use, 1, 'current', 'HS512', sealed, t
    from inserted, (values
      ('access', ${param('sealedAccessSecret')}::bytea), ('refresh', ${param('sealedRefreshSecret')}::bytea)
    ) as new (use, sealed)
  ),
  credentialed as (
    ${insertInto(apiKeys, 'id', 'customerId', 'name', 'scope', 'digest', 'createdAt')}
    select ${param('newApiKeyId')}::text, customer_id, 'first key', ${param('apiKeyScope')}, ${param('apiKeyDigest')}, t
    from inserted where ${param('newApiKeyId')}::text is not null
  )`

/** The detail of a new customer's audit event. */
export const newCustomerDetail = sql`json_strip_nulls(json_build_object('api_key_id', ${param('newApiKeyId')}::text))::text`

/**
 * Inserts a customer and its session. No row: the email is taken.
 *
 * 1. `requests` is the requested session (acts: one).
 * 2. `inserted`, `keyed` and `credentialed` make the customer (newCustomerParts).
 * 3. `grants` has the session's limits, from the settings only: a new customer has no policy.
 * 4. `started` and `audited` insert the session and the event.
 */
export const insertCustomer = prepared('insertCustomer')<
  Acts & NewCustomer & Defaults,
  IssueResult & { createdAt: Date }
>(sql`
  with ${requestsPart},
  ${newCustomerParts(sql``, firstIssuedUntil)},
  grants as (
    select requests.*, t, ${EVERYONES_EPOCH} as customer_epoch, 0 as subject_epoch, 1 as access_version,
      1 as refresh_version, ${limitColumns}, null::text as refused,
      false as raise_due
    from inserted join requests using (customer_id), (select ${policyColumns()}) as rules
  ),
  started as (${sessionInsert('grants')}),
  audited as (${auditInsertOfEach(sql`type`, 'grants', {
    subject: sql`customer_id`,
    session: sql`session_id`,
    token: sql`token_id`,
    detail: newCustomerDetail,
  })})
  select ${issueColumns}, t as "createdAt" from grants`)

export type Login = RowOf<typeof findLogin>

export const findLogin = query('findLogin', (db, { email }: Params<{ email: string }>) =>
  db
    .select(pick(customers, 'id', 'emailVerifiedAt', 'name', 'passwordHash', 'state', 'createdAt'))
    .from(customers)
    .where(eq(customers.email, email)),
)

/**
 * customerId is null for an unknown email. The email isn't recorded, because it may be a password in the
 * wrong field.
 */
export const insertLoginFailure = prepared('insertLoginFailure')<
  AuditContext & { customerId: string | undefined; reason: string },
  never
>(sql`
  with failed as (select ${now} as t, ${param('customerId')}::text as customer_id)
  ${auditInsert('customer.login_failed', 'failed', {
    detail: sql`json_build_object('reason', ${param('reason')}::text)::text`,
  })}`)

/** A session requested a new password or address, with a wrong current password. */
export const insertPasswordFailure = prepared('insertPasswordFailure')<
  AuditContext & { customerId: string; sessionId: string; type: AuditType },
  never
>(sql`
  with failed as (select ${now} as t, ${param('customerId')}::text as customer_id)
  ${auditInsert(sql`${param('type')}::text`, 'failed', {
    subject: sql`customer_id`,
    session: sql`${param('sessionId')}::text`,
  })}`)

export type CustomerRow = RowOf<typeof findCustomer>

export const findCustomer = query('findCustomer', (db, { customerId }: Params<{ customerId: string }>) =>
  db
    .select(pick(customers, 'id', 'email', 'emailVerifiedAt', 'name', 'state', 'passwordHash', 'createdAt'))
    .from(customers)
    .where(eq(customers.id, customerId)),
)

const s = alias(sessions, 's')

/** The ids of the sessions that were ended, and the change feed's number if there were any. */
export interface EndedSessions {
  ended: string[]
  seq: number | null
}

/** An act on a customer's account. It ends the account's sessions except `keepSessionId`, if set. */
interface AccountAct extends AuditContext {
  customerId: string
  keepSessionId?: string | undefined
}

/**
 * Ends the account's own sessions (never its users') of the customer in the part `from` at its time `t`, except the one to keep.
 * Selects an EndedSessions.
 *
 * 1. `withdrawn` deletes the open tokens that would undo the change: someone who knew the old password may have requested another
 *    address.
 * 2. `locked` locks the sessions in the same order as every statement that ends several. Otherwise two statements could wait for
 *    each other.
 * 3. `ended`, `audited_ends` and `changes` end, audit and publish them.
 */
const endAccountSessionsParts = (from: string, after: string[]) => sql`
  ${withdrawnPart(from, ['password_reset', 'email_change'])},
  locked as materialized (
    select ${s.customerId}, ${s.id}, t from ${sessions} as ${s}, ${sql.raw(from)} as c
    where ${s.customerId} = c.customer_id and ${s.subject} = c.customer_id and ${s.scope} = 'assay:account'
      and ${s.id} is distinct from ${param('keepSessionId')}::text and ${s.revokedAt} is null and ${s.expiresAt} > t
    order by ${s.customerId}, ${s.id}
    for update of ${s}
  ),
  ended as (
    update ${sessions} as ${s} set ${bare(s.revokedAt)} = l.t from locked as l
    where ${s.customerId} = l.customer_id and ${s.id} = l.id
    returning s.*, l.t
  ),
  audited_ends as (${auditInsert('session.revoked', 'ended', { subject: sql`subject`, session: sql`id` })}),
  ${publishParts('session', 'ended', [...after, 'withdrawn', 'audited_ends'], SESSION_END)}
  select coalesce((select json_agg(id) from ended), '[]') as ended, ${publishedColumns} from ${sql.raw(from)}`

/** Changes the password of a customer and ends its account's own sessions. */
const passwordSql = (type: AuditType, condition = sql``) => sql`
  with changed as (
    update ${customers} set ${bare(customers.passwordHash)} = ${param('newHash')}
    where ${customers.id} = ${param('customerId')} ${condition}
    returning ${customers.id} as customer_id, ${now} as t
  ),
  audited as (${auditInsert(type, 'changed', {
    subject: sql`customer_id`,
    session: sql`${param('keepSessionId')}::text`,
  })}),
  ${endAccountSessionsParts('changed', ['audited'])}`

/** Sets a password chosen by an operator. No row: no such customer. */
export const setPassword = prepared('setPassword')<AccountAct & { newHash: string }, EndedSessions>(
  passwordSql('customer.password_set'),
)

/** Changes the password, unless another request has changed it since. No row: the old hash is no longer the customer's. */
export const updatePassword = prepared('updatePassword')<
  AccountAct & { oldHash: string; newHash: string },
  EndedSessions
>(passwordSql('customer.password_changed', sql`and ${customers.passwordHash} = ${param('oldHash')}`))

/**
 * Consumes a token and sets the password. It works for a disabled customer too, which stays disabled. No row: the token is
 * not open.
 */
export const resetPassword = prepared('resetPassword')<
  AccountAct & PresentedToken & { newHash: string },
  EndedSessions
>(sql`
  with ${consumedParts('password_reset')},
  changed as (
    update ${customers} set ${bare(customers.passwordHash)} = ${param('newHash')}
    from consumed where ${customers.id} = consumed.customer_id
    returning consumed.customer_id, consumed.t
  ),
  audited as (${auditInsert('customer.password_reset', 'changed', { subject: sql`customer_id` })}),
  ${endAccountSessionsParts('changed', ['audited'])}`)

/** Ends the sessions that a change of the password can't have seen: those of logins that it waited for. */
export const endAccountSessions = prepared('endAccountSessions')<AccountAct, EndedSessions>(sql`
  with clock as materialized (select ${now} as t, ${param('customerId')}::text as customer_id),
  ${endAccountSessionsParts('clock', [])}`)
