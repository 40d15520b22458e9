import { statement } from '../statement.ts'
import { type AuditContext, auditedAs, OF_EACH_ROW } from './audit.ts'
import { type Acts, AFTER_DEATH, EVERYONES_EPOCH, PUBLISHED, publishing } from './change-feed.ts'
import { ASKED, ISSUED, type Issued, LIMITS, starting } from './issue.ts'
import { type Defaults, ruling } from './policy.ts'

/** A customer that doesn't exist yet. */
export interface MadeCustomer {
  customerId: string
  email: string
  name: string | undefined
  passwordHash: string
  sealedDataKey: Uint8Array
  sealedAccessSecret: Uint8Array
  sealedRefreshSecret: Uint8Array
  newApiKeyId: string
  apiKeyScope: string
  apiKeyDigest: Uint8Array
}

/** Inserts it with its data key, its first two signing keys and its API key, unless the email is taken. */
export const makingCustomer = (condition = '') => `
  inserted as (
    insert into assay.customers (id, email, name, password_hash, sealed_data_key, api_keys, created_at)
    select :customerId, :email, :name, :passwordHash, :sealedDataKey, 1, assay.now() ${condition}
    on conflict (email) do nothing
    returning id as customer_id, created_at as t
  ),
  keyed as (
    insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret, created_at)
    select customer_id, use, 1, 'current', 'HS512', sealed, t
    from inserted, (values ('access', :sealedAccessSecret::bytea), ('refresh', :sealedRefreshSecret::bytea)) as new (use, sealed)
  ),
  credentialed as (
    insert into assay.api_keys (id, customer_id, name, scope, digest, created_at)
    select :newApiKeyId, customer_id, 'first key', :apiKeyScope, :apiKeyDigest, t from inserted
  )`

/** A customer and its session. No row: the email is taken. */
export const insertCustomer = statement('insertCustomer')<
  Acts & MadeCustomer & Defaults,
  Issued & { createdAt: Date }
>(`
  with ${ASKED},
  ${makingCustomer()},
  entitled as (
    select asked.*, t, ${EVERYONES_EPOCH} as customer_epoch, 0 as subject_epoch, 1 as access_version, 1 as refresh_version, ${LIMITS},
      null::text as refused
    from inserted join asked using (customer_id), (select ${ruling()}) as rules
  ),
  started as (${starting('entitled')}),
  audited as (${auditedAs('type', 'entitled', {
    subject: 'customer_id',
    session: 'session_id',
    token: 'token_id',
    detail: `json_build_object('api_key_id', :newApiKeyId::text)::text`,
    ...OF_EACH_ROW,
  })})
  select ${ISSUED}, t as "createdAt" from entitled`)

export interface Login {
  id: string
  name: string | null
  passwordHash: string
  state: 'active' | 'disabled'
  createdAt: Date
}

export const findLogin = statement('findLogin')<{ email: string }, Login>(`
  select id, name, password_hash as "passwordHash", state, created_at as "createdAt"
  from assay.customers where email = :email`)

/** customerId is null for an email that no customer has: its spelling may be a password in the wrong field. */
export const insertLoginFailure = statement('insertLoginFailure')<
  AuditContext & { customerId: string | undefined; reason: string },
  never
>(`
  with failed as (select assay.now() as t, :customerId::text as customer_id)
  ${auditedAs(`'customer.login_failed'`, 'failed', { detail: `json_build_object('reason', :reason::text)::text` })}`)

export interface CustomerRow {
  id: string
  email: string
  name: string | null
  state: 'active' | 'disabled'
  passwordHash: string
  createdAt: Date
}

export const findCustomer = statement('findCustomer')<{ customerId: string }, CustomerRow>(`
  select id, email, name, state, password_hash as "passwordHash", created_at as "createdAt"
  from assay.customers where id = :customerId`)

/**
 * Ends the account's sessions, of the customer that `from` names (never its users'), from `t` on; all but those that
 * `keeping` holds back.
 */
export const endingSessions = (from: string, keeping = '') => `
  locked as materialized (
    -- In the order of every statement that ends several, or two of them could wait for each other.
    select s.customer_id, s.id, t from assay.sessions s, ${from} c
    where s.customer_id = c.customer_id and s.subject = c.customer_id and s.scope = 'assay:account'
      ${keeping} and s.revoked_at is null and s.expires_at > t
    order by s.customer_id, s.id
    for update of s
  ),
  ended as (
    update assay.sessions s set revoked_at = l.t from locked l
    where s.customer_id = l.customer_id and s.id = l.id
    returning s.*, l.t
  ),
  audited_ends as (${auditedAs(`'session.revoked'`, 'ended', { subject: 'subject', session: 'id' })}),
  narrowed as (
    select 'session' as kind, customer_id, id as key, 0 as epoch, access_until + ${AFTER_DEATH} as dead_after from ended
  )`

const BUT_ONE = 'and s.id <> :keepSessionId'

export const ENDED = `coalesce((select json_agg(id) from ended), '[]') as ended, ${PUBLISHED}`

/** The ids of the sessions that were ended, and the change feed's number if there were any. */
export interface Ended {
  ended: string[]
  seq: number | null
}

/**
 * Changes the password, unless it was changed meanwhile, and ends the customer's own other sessions. No row: the old hash
 * is no longer the customer's.
 */
export const updatePassword = statement('updatePassword')<
  AuditContext & { customerId: string; oldHash: string; newHash: string; keepSessionId: string },
  Ended
>(`
  with changed as (
    update assay.customers set password_hash = :newHash
    where id = :customerId and password_hash = :oldHash
    returning id as customer_id, assay.now() as t
  ),
  audited as (${auditedAs(`'customer.password_changed'`, 'changed', {
    subject: 'customer_id',
    session: ':keepSessionId::text',
  })}),
  ${endingSessions('changed', BUT_ONE)},
  ${publishing(['audited', 'audited_ends'])}
  select ${ENDED} from changed`)

/** Ends what `updatePassword` can't have seen: sessions of logins that it waited for. */
export const endOtherSessions = statement('endOtherSessions')<
  AuditContext & { customerId: string; keepSessionId: string },
  Ended
>(`
  with clock as materialized (select assay.now() as t, :customerId::text as customer_id),
  ${endingSessions('clock', BUT_ONE)},
  ${publishing(['audited_ends'])}
  select ${ENDED}`)
