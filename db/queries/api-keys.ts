import { bare, insertInto, pick } from '../columns.ts'
import { alias, desc, eq, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Params, query, type RowOf } from '../query.ts'
import { apiKeys } from '../schema/api-keys.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { type AuditContext, auditInsert } from './audit.ts'
import { publishedColumns, publishParts } from './change-feed.ts'

/**
 * Creates an API key. No row: the customer has `limit` keys already. It fails by the constraint `api_keys_retry` if one was made
 * under the same Idempotency-Key. Nothing stops being accepted, so nothing is published.
 *
 * 1. `counted` counts the key, if the limit allows one more. Its lock on the customer's row serialises concurrent creations.
 * 2. `inserted` and `audited` insert the key and its event.
 */
export const insertApiKey = prepared('insertApiKey')<
  AuditContext & {
    customerId: string
    id: string
    name: string | undefined
    scope: string
    digest: Uint8Array
    /** Seconds from now. */
    expiresIn: number | undefined
    retryDigest: Uint8Array | undefined
    limit: number
  },
  { createdAt: Date; expiresAt: Date | null }
>(sql`
  with counted as (
    update ${customers} set ${bare(customers.apiKeys)} = ${customers.apiKeys} + 1
    where ${customers.id} = ${param('customerId')} and ${customers.apiKeys} < ${param('limit')}::int
    returning ${customers.id} as customer_id, ${now} as t
  ),
  inserted as (
    ${insertInto(apiKeys, 'id', 'customerId', 'name', 'scope', 'digest', 'createdAt', 'expiresAt', 'retryDigest')}
    select ${param('id')}, customer_id, ${param('name')}, ${param('scope')}, ${param('digest')}, t,
      t + make_interval(secs => ${param('expiresIn')}::float8), ${param('retryDigest')}
    from counted
    returning ${apiKeys.id}, ${apiKeys.customerId}, ${apiKeys.createdAt} as t, ${apiKeys.expiresAt}
  ),
  audited as (${auditInsert('api_key.created', 'inserted', {
    detail: sql`json_build_object('api_key_id', id, 'scope', ${param('scope')}::text)::text`,
  })})
  select t as "createdAt", expires_at as "expiresAt" from inserted`)

/** Finds the API key that was made under an Idempotency-Key. No row: none was made, or it was deleted. */
export const findRetriedKey = query(
  'findRetriedKey',
  (db, { retryDigest }: Params<{ retryDigest: Uint8Array }>) =>
    db
      .select(pick(apiKeys, 'id', 'digest', 'createdAt', 'expiresAt'))
      .from(apiKeys)
      .where(eq(apiKeys.retryDigest, retryDigest)),
)

const c = alias(customers, 'c')

/**
 * Returns the change feed's number. No row: there is no such key. `counted` comes before publishing, so that
 * the customer's row is locked before the change feed's.
 */
export const deleteApiKey = prepared('deleteApiKey')<
  AuditContext & { customerId: string; id: string },
  { seq: number }
>(sql`
  with deleted as (
    delete from ${apiKeys} where ${apiKeys.customerId} = ${param('customerId')} and ${apiKeys.id} = ${param('id')}
    returning ${apiKeys.id}, ${apiKeys.customerId}, ${now} as t
  ),
  counted as (
    update ${customers} as ${c} set ${bare(c.apiKeys)} = ${c.apiKeys} - 1 from deleted
    where ${c.id} = deleted.customer_id
    returning 1
  ),
  audited as (${auditInsert('api_key.deleted', 'deleted', {
    detail: sql`json_build_object('api_key_id', id)::text`,
  })}),
  ${publishParts('customer', 'deleted', ['audited', 'counted'])}
  select ${publishedColumns} from deleted`)

/** Records the use of API keys, in batches. A row that another replica is updating is skipped. */
export const touchApiKeys = prepared('touchApiKeys')<{ ids: string }, never>(sql`
  with due as (
    select ${apiKeys.id} from ${apiKeys}
    where ${apiKeys.id} in (select jsonb_array_elements_text(${param('ids')}::text::jsonb))
      and (${apiKeys.lastUsedAt} is null or ${apiKeys.lastUsedAt} < ${now} - interval '1 minute')
    for update skip locked
  )
  update ${apiKeys} set ${bare(apiKeys.lastUsedAt)} = ${now} from due where ${apiKeys.id} = due.id`)

export type ApiKeyRow = RowOf<typeof listApiKeys>

/** Lists the API keys, newest first. */
export const listApiKeys = query('listApiKeys', (db, { customerId }: Params<{ customerId: string }>) =>
  db
    .select(pick(apiKeys, 'id', 'name', 'scope', 'createdAt', 'expiresAt', 'lastUsedAt'))
    .from(apiKeys)
    .where(eq(apiKeys.customerId, customerId))
    .orderBy(desc(apiKeys.createdAt), desc(apiKeys.id)),
)
