import { statement } from '../statement.ts'
import { ENDED, type Ended, endingSessions, type MadeCustomer, makingCustomer } from './accounts.ts'
import { type AuditContext, auditedAs } from './audit.ts'
import { AFTER_DEATH, LONGEST_TOKEN, PUBLISHED, publishing } from './change-feed.ts'
import { POLICY, type Policy } from './policy.ts'

/** Customers as operators see them, and what operators do to them. */

export interface AdminCustomer extends Policy {
  id: string
  email: string
  name: string | null
  state: 'active' | 'disabled'
  /** Counts the operators' changes. */
  revision: number
  createdAt: Date
}

const LISTED = `id, email, name, state, revision, created_at as "createdAt", ${POLICY}`

export const findListed = statement('findListed')<{ customerId: string }, AdminCustomer>(
  `select ${LISTED} from assay.customers where id = :customerId`,
)

/** With the digest of its API key of this id; null: it was deleted. */
export const findCreated = statement('findCreated')<
  { customerId: string; apiKeyId: string },
  AdminCustomer & { digest: Uint8Array | null }
>(`
  select ${LISTED}, (select digest from assay.api_keys k where k.id = :apiKeyId) as digest
  from assay.customers where id = :customerId`)

/** The audit has it of somebody who was erased. */
const ERASURE = `select from assay.audit_events where customer_id = :customerId and type = 'customer.erased' limit 1`

/** A row: there was one, who was erased. */
export const findErasure = statement('findErasure')<{ customerId: string }, never>(ERASURE)

/** Newest first, after the last one seen. */
export const listCustomers = statement('listCustomers')<
  { beforeAt: Date | undefined; beforeId: string | undefined; limit: number },
  AdminCustomer
>(`
  select ${LISTED} from assay.customers
  where (created_at, id) < (coalesce(:beforeAt::timestamptz, 'infinity'), coalesce(:beforeId::text, ''))
  order by created_at desc, id desc limit :limit`)

/**
 * Those whose text begins with what was typed, after the last one seen, in the order of the text's bytes. As a range of the
 * index that compares bytes: what `like` begins with can't be known when a prepared statement is planned.
 */
const beginningWith = (text: string) => `
  select ${LISTED}, ${text} as key from assay.customers
  where ${text} ~>=~ lower(:prefix) and ${text} ~<~ (lower(:prefix) || chr(1114111))
    and ${text} ~>=~ coalesce(:afterText::text, '') and (${text} ~>~ coalesce(:afterText::text, '') or id > coalesce(:afterId::text, ''))
  order by ${text} using ~<~, id limit :limit`

export interface Search {
  prefix: string
  /** The last one already seen. */
  afterText: string | undefined
  afterId: string | undefined
  limit: number
}

/** With the text that each was found by. */
type Found = AdminCustomer & { key: string }

export const searchEmails = statement('searchEmails')<Search, Found>(beginningWith('email'))
export const searchNames = statement('searchNames')<Search, Found>(beginningWith('lower(name)'))

/**
 * A customer with its data key, its first two signing keys and its API key, and no session. No row: the email is taken, or one
 * with this id was erased, maybe while the password of this one was hashed.
 */
export const insertCustomerAlone = statement('insertCustomerAlone')<
  AuditContext & MadeCustomer,
  { createdAt: Date }
>(`
  with ${makingCustomer(`where not exists (${ERASURE})`)},
  audited as (${auditedAs(`'customer.created'`, 'inserted', {
    subject: 'customer_id',
    detail: `json_build_object('api_key_id', :newApiKeyId::text)::text`,
  })})
  select t as "createdAt" from inserted`)

/** Of the part `changed`: everything about them is read anew, by every replica. */
const NARROWED = `
  narrowed as (
    select 'customer' as kind, customer_id, '' as key, 0 as epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after
    from changed
  )`

interface Change extends AuditContext {
  customerId: string
  /** Nothing is changed unless it is still this one. */
  revision: number | undefined
}

const UNCHANGED = '(:revision::int is null or revision = :revision::int)'

/** No row: no such customer, another revision, or it has this state. */
const changingState = (
  name: string,
  from: string,
  to: string,
  type: 'customer.disabled' | 'customer.enabled',
) =>
  statement(name)<Change, { seq: number }>(`
  with changed as (
    update assay.customers set state = '${to}', revision = revision + 1
    where id = :customerId and state = '${from}' and ${UNCHANGED}
    returning id as customer_id, assay.now() as t
  ),
  audited as (${auditedAs(`'${type}'`, 'changed', { subject: 'customer_id' })}),
  ${NARROWED},
  ${publishing(['audited'])}
  select ${PUBLISHED} from changed`)

export const disableCustomer = changingState('disableCustomer', 'active', 'disabled', 'customer.disabled')
export const enableCustomer = changingState('enableCustomer', 'disabled', 'active', 'customer.enabled')

/** What is null stays. No row: no such customer, another revision, or the email is another's. */
export const updateCustomer = statement('updateCustomer')<
  Change & { email: string | undefined; name: string | undefined },
  { revision: number }
>(`
  with changed as (
    update assay.customers c
    set email = coalesce(:email, email), name = coalesce(:name, name), revision = revision + 1
    where id = :customerId and ${UNCHANGED}
      and not exists (select from assay.customers other where other.email = :email and other.id <> c.id)
    returning id as customer_id, revision, assay.now() as t
  ),
  audited as (${auditedAs(`'customer.changed'`, 'changed', { subject: 'customer_id' })})
  select revision from changed`)

/** The whole policy, in place of the one before. No row: no such customer, or another revision. */
export const updatePolicy = statement('updatePolicy')<Change & Policy, { revision: number }>(`
  with changed as (
    update assay.customers set scopes = :scopes, access_token_ttl = :accessTokenTtl,
      max_access_token_ttl = :maxAccessTokenTtl, refresh_token_ttl = :refreshTokenTtl, session_max_ttl = :sessionMaxTtl,
      refresh_policy = :refreshPolicy, key_max_age = :keyMaxAge, revision = revision + 1
    where id = :customerId and ${UNCHANGED}
    returning id as customer_id, revision, assay.now() as t
  ),
  audited as (${auditedAs(`'customer.policy_set'`, 'changed', {
    subject: 'customer_id',
    detail: `json_strip_nulls(json_build_object('scopes', :scopes::text, 'access_token_ttl', :accessTokenTtl::int,
      'max_access_token_ttl', :maxAccessTokenTtl::int, 'refresh_token_ttl', :refreshTokenTtl::int,
      'session_max_ttl', :sessionMaxTtl::int, 'refresh_policy', :refreshPolicy::text, 'key_max_age', :keyMaxAge::int))::text`,
  })})
  select revision from changed`)

/** Gives it a password that the operator chose, and ends the account's own sessions. No row: no such customer. */
export const setPassword = statement('setPassword')<
  AuditContext & { customerId: string; newHash: string },
  Ended
>(`
  with changed as (
    update assay.customers set password_hash = :newHash where id = :customerId
    returning id as customer_id, assay.now() as t
  ),
  audited as (${auditedAs(`'customer.password_set'`, 'changed', { subject: 'customer_id' })}),
  ${endingSessions('changed')},
  ${publishing(['audited', 'audited_ends'])}
  select ${ENDED} from changed`)

/** Ends what `setPassword` can't have seen: sessions of logins that it waited for. */
export const endAccountSessions = statement('endAccountSessions')<
  AuditContext & { customerId: string },
  Ended
>(`
  with clock as materialized (select assay.now() as t, :customerId::text as customer_id),
  ${endingSessions('clock')},
  ${publishing(['audited_ends'])}
  select ${ENDED}`)

export interface ErasureReport {
  erasedAt: Date
  sessions: number
  apiKeys: number
  secrets: number
  /** Events of the audit that lost what is personal. */
  auditEvents: number
  seq: number
}

/** Whom events are about and where they came from; ids, kinds and times stay. */
const scrubbing = (of: string, since = '') => `
  update assay.audit_events e set subject = null, ip = null, user_agent = null
  from ${of} c
  where e.customer_id = c.customer_id and e.type <> 'customer.erased'
    and (e.subject is not null or e.ip is not null or e.user_agent is not null) ${since}
  returning 1`

/**
 * Everything of a customer but its part of the audit, which keeps ids and nothing personal. No row: no such customer.
 */
export const eraseCustomer = statement('eraseCustomer')<
  AuditContext & { customerId: string },
  ErasureReport
>(`
  with changed as (
    delete from assay.customers where id = :customerId returning id as customer_id, assay.now() as t
  ),
  ended as (delete from assay.sessions s using changed c where s.customer_id = c.customer_id returning 1),
  keys as (delete from assay.api_keys a using changed c where a.customer_id = c.customer_id returning 1),
  versions as (delete from assay.signing_keys k using changed c where k.customer_id = c.customer_id returning 1),
  forgotten as (delete from assay.idempotency_keys i using changed c where i.customer_id = c.customer_id returning 1),
  raised as (delete from assay.subject_epochs e using changed c where e.customer_id = c.customer_id returning 1),
  scrubbed as (${scrubbing('changed')}),
  counted as materialized (
    select changed.*,
      (select count(*) from ended) as sessions,
      (select count(*) from keys) as api_keys,
      (select count(*) from versions) as secrets,
      (select count(*) from scrubbed) as audit_events
    from changed
  ),
  audited as (${auditedAs(`'customer.erased'`, 'counted', {
    detail: `json_build_object('sessions', sessions, 'api_keys', api_keys, 'secrets', secrets, 'audit_events', audit_events)::text`,
  })}),
  ${NARROWED},
  -- All locks are had before the change feed's: its counter stays locked only for the commit.
  ${publishing(['audited', 'forgotten', 'raised'])}
  select ${PUBLISHED}, t as "erasedAt", sessions, api_keys as "apiKeys", secrets, audit_events as "auditEvents" from counted`)

/** Who was erased within the hour, and when. */
export const findErased = statement('findErased')<Record<never, never>, { customerId: string; at: Date }>(`
  select customer_id as "customerId", max(at) as at from assay.audit_events
  where type = 'customer.erased' and type not in ('token.issued', 'session.refreshed')
    and at > (select assay.now() - interval '1 hour')
  group by customer_id`)

/** What was under way when its customer was erased, and wrote after: sessions, epochs and events of the audit. */
export const sweepErased = statement('sweepErased')<{ customerId: string; at: Date }, never>(`
  with erased as materialized (select :customerId::text as customer_id, :at::timestamptz as erased_at),
  ended as (delete from assay.sessions s using erased c where s.customer_id = c.customer_id returning 1),
  raised as (delete from assay.subject_epochs e using erased c where e.customer_id = c.customer_id returning 1)
  ${scrubbing('erased', `and e.at > c.erased_at - interval '1 minute'`)}`)
