import { statement } from '../statement.ts'
import { type AuditContext, auditedAs } from './audit.ts'
import { AFTER_DEATH, LONGEST_TOKEN, PUBLISHED, publishing } from './change-feed.ts'

/**
 * No row: the customer has `limit` keys already. Where one was made under the same Idempotency-Key it fails, by
 * `api_keys_retry`. Nothing is narrowed, so nothing is published.
 */
export const insertApiKey = statement('insertApiKey')<
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
>(`
  with counted as (
    update assay.customers set api_keys = api_keys + 1
    where id = :customerId and api_keys < :limit::int
    returning id as customer_id, assay.now() as t
  ),
  inserted as (
    insert into assay.api_keys (id, customer_id, name, scope, digest, created_at, expires_at, retry_digest)
    select :id, customer_id, :name, :scope, :digest, t, t + make_interval(secs => :expiresIn::float8), :retryDigest
    from counted
    returning id, customer_id, created_at as t, expires_at
  ),
  audited as (${auditedAs(`'api_key.created'`, 'inserted', {
    detail: `json_build_object('api_key_id', id, 'scope', :scope::text)::text`,
  })})
  select t as "createdAt", expires_at as "expiresAt" from inserted`)

/** What was made under an Idempotency-Key. No row: nothing, or it was deleted. */
export const findRetriedKey = statement('findRetriedKey')<
  { retryDigest: Uint8Array },
  { id: string; digest: Uint8Array; createdAt: Date; expiresAt: Date | null }
>(`
  select id, digest, created_at as "createdAt", expires_at as "expiresAt"
  from assay.api_keys where retry_digest = :retryDigest`)

/** Answers the change feed's number; no row: there is no such key. */
export const deleteApiKey = statement('deleteApiKey')<
  AuditContext & { customerId: string; id: string },
  { seq: number }
>(`
  with deleted as (
    delete from assay.api_keys where customer_id = :customerId and id = :id
    returning id, customer_id, assay.now() as t
  ),
  counted as (
    update assay.customers c set api_keys = c.api_keys - 1 from deleted where c.id = deleted.customer_id returning 1
  ),
  audited as (${auditedAs(`'api_key.deleted'`, 'deleted', { detail: `json_build_object('api_key_id', id)::text` })}),
  narrowed as (
    select 'customer' as kind, customer_id, '' as key, 0 as epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after
    from deleted
  ),
  ${publishing(['audited', 'counted'])}
  select ${PUBLISHED} from deleted`)

/** Notes the use of API keys, in batches; a row that another replica is just noting is passed over. */
export const touchApiKeys = statement('touchApiKeys')<{ ids: string }, never>(`
  with due as (
    select id from assay.api_keys
    where id in (select jsonb_array_elements_text(:ids::text::jsonb))
      and (last_used_at is null or last_used_at < assay.now() - interval '1 minute')
    for update skip locked
  )
  update assay.api_keys set last_used_at = assay.now() from due where api_keys.id = due.id`)

export interface ApiKeyRow {
  id: string
  name: string | null
  scope: string
  createdAt: Date
  expiresAt: Date | null
  lastUsedAt: Date | null
}

/** Newest first. */
export const listApiKeys = statement('listApiKeys')<{ customerId: string }, ApiKeyRow>(`
  select id, name, scope, created_at as "createdAt", expires_at as "expiresAt", last_used_at as "lastUsedAt"
  from assay.api_keys where customer_id = :customerId
  order by created_at desc, id desc`)
