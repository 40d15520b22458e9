import { bare, pick } from '../columns.ts'
import { alias, and, desc, eq, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Builder, type Params, query, type RowOf } from '../query.ts'
import { apiKeys } from '../schema/api-keys.ts'
import { auditEvents } from '../schema/audit-events.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { type NewCustomer, newCustomerDetail, newCustomerParts } from './accounts.ts'
import { type AuditContext, type AuditType, auditInsert } from './audit.ts'
import { publishedColumns, publishParts } from './change-feed.ts'
import { withdrawnPart } from './one-time-tokens.ts'
import { POLICY_COLUMNS, type Policy } from './policy.ts'
import { isAfter, type Page } from './sessions.ts'

/**
 * Admin operations on customers. A change is published if replicas have to reload the customer.
 */

export type AdminCustomer = RowOf<typeof findListed>

/** The columns that operators see. */
export const LISTED = {
  ...pick(customers, 'id', 'email', 'emailVerifiedAt', 'name', 'state', 'revision', 'createdAt'),
  ...POLICY_COLUMNS,
}

export const findListed = query('findListed', (db, { customerId }: Params<{ customerId: string }>) =>
  db.select(LISTED).from(customers).where(eq(customers.id, customerId)),
)

/** Finds a customer with the digest of its API key of this id, or null if there is no such key. */
export const findCreated = query(
  'findCreated',
  (db, { customerId, apiKeyId }: Params<{ customerId: string; apiKeyId: string }>) =>
    db
      .select({ ...LISTED, passwordHash: customers.passwordHash, digest: apiKeys.digest })
      .from(customers)
      .leftJoin(apiKeys, eq(apiKeys.id, apiKeyId))
      .where(eq(customers.id, customerId)),
)

/** Newest first, after the last one seen. */
export const listCustomers = query('listCustomers', (db, page: Params<Page>) =>
  db
    .select(LISTED)
    .from(customers)
    .where(isAfter(customers.createdAt, customers.id, page))
    .orderBy(desc(customers.createdAt), desc(customers.id))
    .limit(page.limit),
)

export interface Search {
  prefix: string
  /** The last one already seen. */
  afterText: string | undefined
  afterId: string | undefined
  limit: number
}

/**
 * Finds customers whose `text` begins with the prefix, after the last one seen, in the order of the text's bytes. It is
 * a range of the index that compares bytes, since the planner of a prepared statement can't know how the pattern of a
 * `like` begins. `key` is the text that each was found by.
 */
const searchPrefix = (
  db: Builder,
  text: SQL<string>,
  { prefix, afterText, afterId, limit }: Params<Search>,
) =>
  db
    .select({ ...LISTED, key: text })
    .from(customers)
    .where(
      and(
        sql`${text} ~>=~ lower(${prefix}) and ${text} ~<~ (lower(${prefix}) || chr(1114111))`,
        sql`${text} ~>=~ coalesce(${afterText}::text, '')`,
        sql`(${text} ~>~ coalesce(${afterText}::text, '') or ${customers.id} > coalesce(${afterId}::text, ''))`,
      ),
    )
    .orderBy(sql`${text} using ~<~`, customers.id)
    .limit(limit)

export const searchEmails = query('searchEmails', (db, search: Params<Search>) =>
  searchPrefix(db, sql<string>`${customers.email}`, search),
)
export const searchNames = query('searchNames', (db, search: Params<Search>) =>
  searchPrefix(db, sql<string>`lower(${customers.name})`, search),
)

const wasErased = sql`exists (
  select from ${auditEvents} where ${auditEvents.customerId} = ${param('customerId')}
    and ${auditEvents.type} = 'customer.erased' limit 1)`

/**
 * Inserts a customer with its data key, its first two signing keys and its API key, but no session. No row: the email is taken,
 * or a customer with this id was erased, maybe while the password was hashed.
 */
export const insertCustomerAlone = prepared('insertCustomerAlone')<
  AuditContext & NewCustomer,
  { createdAt: Date }
>(sql`
  with ${newCustomerParts(sql`where not ${wasErased}`)},
  audited as (${auditInsert('customer.created', 'inserted', {
    subject: sql`customer_id`,
    detail: newCustomerDetail,
  })})
  select t as "createdAt" from inserted`)

interface Change extends AuditContext {
  customerId: string
  /** The change is applied only if this is still the current revision. */
  revision: number | undefined
}

const isUnchanged = sql`(${param('revision')}::int is null or ${customers.revision} = ${param('revision')}::int)`
const nextRevision = sql`${bare(customers.revision)} = ${customers.revision} + 1`

/**
 * The parts of a change: `changed` changes the row, unless it has another revision or fails the condition, and `audited`
 * inserts the event.
 */
const changeParts = (type: AuditType, assignments: SQL, condition: SQL, detail = sql`null`) => sql`
  changed as (
    update ${customers} set ${assignments}, ${nextRevision}
    where ${customers.id} = ${param('customerId')} and ${isUnchanged} and ${condition}
    returning ${customers.id} as customer_id, ${customers.revision}, ${now} as t
  ),
  audited as (${auditInsert(type, 'changed', { subject: sql`customer_id`, detail })})`

/** Changes the state, which every replica applies to the customer's secrets and API keys. */
const changeState = (type: AuditType, state: SQL) => sql`
  with ${changeParts(type, sql`${bare(customers.state)} = ${state}`, sql`${customers.state} <> ${state}`)},
  ${publishParts('customer', 'changed', ['audited'])}
  select ${publishedColumns} from changed`

/** No row: no such customer, another revision, or it is disabled already. */
export const disableCustomer = prepared('disableCustomer')<Change, { seq: number }>(
  changeState('customer.disabled', sql`'disabled'`),
)

/** No row: no such customer, another revision, or it is active already. */
export const enableCustomer = prepared('enableCustomer')<Change, { seq: number }>(
  changeState('customer.enabled', sql`'active'`),
)

const other = alias(customers, 'other')

const newNames = sql`${bare(customers.email)} = coalesce(${param('email')}, ${customers.email}),
  ${bare(customers.emailVerifiedAt)} =
    case when ${customers.email} = coalesce(${param('email')}, ${customers.email}) then ${customers.emailVerifiedAt} end,
  ${bare(customers.name)} = coalesce(${param('name')}, ${customers.name})`
const isFree = sql`not exists (
  select from ${customers} as ${other} where ${other.email} = ${param('email')} and ${other.id} <> ${customers.id})`

/**
 * Changes the values that are not null. Another email is not verified. An open token for a change of the email is withdrawn. No
 * row: no such customer, another revision, or another customer has the email.
 */
export const updateCustomer = prepared('updateCustomer')<
  Change & { email: string | undefined; name: string | undefined },
  { revision: number }
>(sql`
  with ${changeParts('customer.changed', newNames, isFree)},
  ${withdrawnPart('changed', ['email_change'], sql`${param('email')}::text is not null`)}
  select revision from changed`)

const newPolicy = sql.join(
  Object.entries(POLICY_COLUMNS).map(([name, column]) => sql`${bare(column)} = ${param(name)}`),
  sql`, `,
)
const policyDetail = sql`json_strip_nulls(json_build_object('scopes', ${param('scopes')}::text,
  'access_token_ttl', ${param('accessTokenTtl')}::int, 'max_access_token_ttl', ${param('maxAccessTokenTtl')}::int,
  'refresh_token_ttl', ${param('refreshTokenTtl')}::int, 'session_max_ttl', ${param('sessionMaxTtl')}::int,
  'refresh_policy', ${param('refreshPolicy')}::text, 'key_max_age', ${param('keyMaxAge')}::int,
  'tokens_per_minute', ${param('tokensPerMinute')}::int, 'signing_alg', ${param('signingAlg')}::text))::text`

/**
 * Replaces the whole policy; replicas reload the customer's record, which contains its quota. No row: no such
 * customer, or another revision.
 */
export const updatePolicy = prepared('updatePolicy')<Change & Policy, { seq: number }>(sql`
  with ${changeParts('customer.policy_set', newPolicy, sql`true`, policyDetail)},
  ${publishParts('customer', 'changed', ['audited'])}
  select ${publishedColumns} from changed`)
