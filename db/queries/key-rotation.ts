import { bare, insertInto } from '../columns.ts'
import { alias, type SQLWrapper, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { type AuditContext, type AuditType, auditInsert } from './audit.ts'
import { nextEpoch, publishedColumns, publishParts } from './change-feed.ts'
import { customerWithKeys } from './customer-keys.ts'
import { clockIsTrusted } from './database-clock.ts'
import { POSITION, type Position } from './position.ts'

/**
 * The time for which the next key is published before it signs (s). Verifiers fetch a JWKS again after some minutes: jose after
 * ten, Istio after twenty.
 */
export const PUBLISHED_AHEAD_SECONDS = 1800

/** The state that a rotation starts from. */
export interface Rotatable extends Position {
  rotations: number
  sealedDataKey: Uint8Array
  /** The algorithm in the policy; null: HS512. */
  signingAlg: SigningAlg | null
  accessVersion: number
  accessAlg: Algorithm
  accessSealed: Uint8Array
  refreshVersion: number
  /** The key that signs after the next rotation. Its age is the time since it was published (s). */
  next: { version: number; alg: Algorithm; age: number } | null
  /** The highest version that there ever was. */
  lastAccessVersion: number
  /** Versions that still verify beside the current ones. */
  previous: number
}

type Algorithm = (typeof signingKeys.$inferSelect)['alg']
type SigningAlg = NonNullable<(typeof customers.$inferSelect)['signingAlg']>

const { c, a, r } = customerWithKeys
const k = alias(signingKeys, 'k')
const p = alias(signingKeys, 'p')
const n = alias(signingKeys, 'n')

/** Whether the customer's keys may change: operators and services also rotate those of a disabled customer. */
const isChangeable = (customer: { state: SQLWrapper }) =>
  sql`(${customer.state} = 'active' or ${param('whileDisabled')}::boolean)`

/** No row: no such customer, or one that is disabled. */
export const findRotatable = prepared('findRotatable')<
  { customerId: string; whileDisabled: boolean },
  Rotatable
>(sql`
  select ${POSITION}, ${c.rotations}, ${c.sealedDataKey} as "sealedDataKey", ${c.signingAlg} as "signingAlg",
    ${a.version} as "accessVersion", ${a.alg} as "accessAlg", ${a.sealedSecret} as "accessSealed",
    ${r.version} as "refreshVersion",
    (select json_build_object('version', ${n.version}, 'alg', ${n.alg}, 'age', extract(epoch from ${now} - ${n.createdAt}))
      from ${signingKeys} as ${n} where ${n.customerId} = ${c.id} and ${n.state} = 'next') as next,
    (select max(${k.version}) from ${signingKeys} as ${k}
      where ${k.customerId} = ${c.id} and ${k.use} = 'access') as "lastAccessVersion",
    (select count(*) from ${signingKeys} as ${p} where ${p.customerId} = ${c.id} and ${p.state} = 'previous') as previous
  ${customerWithKeys.from}
  where ${c.id} = ${param('customerId')} and ${isChangeable(c)}`)

/** A key to insert. */
export interface NewKey {
  use: 'access' | 'refresh'
  version: number
  state: 'current' | 'next'
  alg: Algorithm
  /** In base64. */
  sealed: string
  /** Seconds after which a `next` key signs without a request. */
  signs_after: number | undefined
}

export interface KeyChange extends AuditContext {
  customerId: string
  /** Whether a disabled customer's keys are changed too. */
  whileDisabled: boolean
  /** The count that the caller has read. Of two concurrent changes, the second one finds another count and does nothing. */
  rotations: number
  /** The algorithm of the policy that the change was made for: another policy may have come first. */
  signingAlg: SigningAlg | null
  /** The uses whose current keys are replaced. */
  access: boolean
  refresh: boolean
  /** The version of the `next` key that becomes the current one. */
  promoted: number | undefined
  /** JSON: NewKey[]. */
  inserted: string
  /** The public half of the current access key, which replaces both halves. */
  sealedPublic: Uint8Array | undefined
  /** All older versions are retired with the replaced ones. */
  now: boolean
  reason: string
}

export interface KeyChangeResult {
  seq: number
  /** The keys that sign from now on. */
  versions: { use: 'access' | 'refresh'; version: number }[]
  /** The key that was published, if any. */
  next: { version: number; alg: Algorithm } | null
  /** No token that Assay signed with the replaced asymmetric keys expires later. Null if none were replaced. */
  signedUntil: Date | null
}

/**
 * Changes a customer's keys. With `now`, if the refresh key is included, the customer's epoch ends every session and every access
 * token, even those without a session. No row: another change came first, or the customer's keys may not change.
 *
 * Every change of a customer's keys is published as one of the customer: replicas reload its whole record. A rotation that
 * revokes nothing is published too, because a replica may have cached the new version's kid as missing, if a failover lost that
 * version before.
 *
 * 1. `rotating` counts the change.
 * 2. `replaced` makes the current versions previous or retired.
 * 3. `promoted` makes the next version the current one, and `discarded` retires one that will never sign, and deletes it. A key's
 *    age begins when it starts to sign.
 * 4. `inserted` inserts the new versions.
 * 5. `audited` and `changes` audit and publish it.
 */
const changeSql = (type: AuditType) => sql`
  with rotating as (
    update ${customers} set ${bare(customers.rotations)} = ${customers.rotations} + 1,
      ${bare(customers.epoch)} = case when ${param('now')} and ${param('refresh')} then ${nextEpoch} else ${customers.epoch} end
    where ${customers.id} = ${param('customerId')} and ${customers.rotations} = ${param('rotations')}
      and ${customers.signingAlg} is not distinct from ${param('signingAlg')}::text and ${isChangeable(customers)}
    returning ${customers.id} as customer_id, ${now} as t, ${bare(customers.issuedUntil)}
  ),
  keys as materialized (
    select * from jsonb_to_recordset(${param('inserted')}::text::jsonb) as key (
      use text, version int, state text, alg text, sealed text, signs_after float8)
  ),
  replaced as (
    update ${signingKeys} as ${k}
    set ${bare(k.state)} = case when ${param('now')} then 'retired' else 'previous' end,
      ${bare(k.replacedAt)} = coalesce(${k.replacedAt}, t), ${bare(k.retiredAt)} = case when ${param('now')} then t end,
      ${bare(k.sealedSecret)} = case when ${k.use} = 'access' and ${k.state} = 'current'
        then coalesce(${param('sealedPublic')}::bytea, ${k.sealedSecret}) else ${k.sealedSecret} end
    from rotating
    where ${k.customerId} = rotating.customer_id
      and case ${k.use} when 'access' then ${param('access')}::boolean else ${param('refresh')}::boolean end
      and (${k.state} = 'current' or ${param('now')} and ${k.state} = 'previous')
    returning ${k.alg}
  ),
  discarded as (
    update ${signingKeys} as ${k} set ${bare(k.state)} = 'retired', ${bare(k.retiredAt)} = t, ${bare(k.sealedSecret)} = ''
    from rotating
    where ${k.customerId} = rotating.customer_id and ${k.state} = 'next'
      and ${k.version} is distinct from ${param('promoted')}::int
      and (${param('access')}::boolean or exists (select from keys where keys.state = 'next'))
    returning 1
  ),
  promoted as (
    update ${signingKeys} as ${k} set ${bare(k.state)} = 'current', ${bare(k.createdAt)} = t, ${bare(k.signsAfter)} = null
    from rotating
    where ${k.customerId} = rotating.customer_id and ${k.state} = 'next' and ${k.version} = ${param('promoted')}::int
      and (select count(*) from replaced) >= 0
    returning ${k.use}, ${k.version}, ${k.alg}
  ),
  inserted as (
    ${insertInto(signingKeys, 'customerId', 'use', 'version', 'state', 'alg', 'sealedSecret', 'signsAfter', 'createdAt')}
    select customer_id, use, version, state, alg, decode(sealed, 'base64'), t + make_interval(secs => signs_after), t
    from rotating, keys
    where (select count(*) from replaced) + (select count(*) from promoted) + (select count(*) from discarded) >= 0
    returning ${signingKeys.use}, ${signingKeys.version}, ${signingKeys.state}, ${signingKeys.alg}
  ),
  signing as (
    select use, version, alg from inserted where state = 'current' union all select use, version, alg from promoted
  ),
  following as (select json_build_object('version', version, 'alg', alg) as key from inserted where state = 'next'),
  audited as (${auditInsert(type, 'rotating', {
    detail: sql`json_strip_nulls(json_build_object('now', ${param('now')}, 'reason', ${param('reason')}::text,
      'versions', (select json_object_agg(use, version) from signing),
      'alg', (select alg from signing where use = 'access' and alg not like 'HS%'),
      'next', (select key from following)))::text`,
  })}),
  ${publishParts('customer', 'rotating', ['audited', 'inserted'])}
  select ${publishedColumns}, (select key from following) as next,
    (select json_agg(json_build_object('use', use, 'version', version) order by use) from signing) as versions,
    case when isfinite(issued_until) and exists (select from replaced where alg not like 'HS%') then issued_until end as "signedUntil"
  from rotating`

/** Puts new versions in place of the current ones. */
export const rotateKeys = prepared('rotateKeys')<KeyChange, KeyChangeResult>(changeSql('secret.rotated'))

/** Publishes another next key in place of the existing one. */
export const publishKey = prepared('publishKey')<KeyChange, KeyChangeResult>(changeSql('secret.published'))

export interface Aged {
  customerId: string
  rotations: number
  access: boolean
  refresh: boolean
  /** The policy requires another algorithm; otherwise the keys are too old. */
  byPolicy: boolean
}

/**
 * Customers whose current key is older than their policy allows, or else than `maxAge` (s; 0: never). The oldest come first, so
 * that those whose policy has a short age don't take every place.
 *
 * 1. `candidates` are the current keys of customers without an age of their own, found by the index on age, and those of the
 *    customers with one.
 * 2. A next key of another algorithm signs once its time has come. So do the keys of a policy if its change was interrupted
 *    before they were made.
 * 3. The maximum age of each is shortened by up to a tenth, depending on its id, so that customers created together don't rotate
 *    together. A customer with as many older versions as may verify waits until some retire, and one whose next key was published
 *    a moment ago until verifiers have it.
 *
 * Returns none while the clock is not trusted: a key that is made while the clock is ahead would be rotated late by as much.
 */
export const findAged = prepared('findAged')<
  { maxAge: number; mostPrevious: number; limit: number },
  Aged
>(sql`
  with candidates as (
    select ${k.customerId}, ${k.use}, ${k.createdAt}, ${param('maxAge')}::float8 as max_age
    from ${signingKeys} as ${k}
    where ${k.state} = 'current'
      and ${k.createdAt} < (select ${now} - make_interval(secs => 0.9 * ${param('maxAge')}::float8))
      and ${param('maxAge')} > 0
      and not exists (select from ${customers} as ${c} where ${c.id} = ${k.customerId} and ${c.keyMaxAge} is not null)
    union all
    select ${c.id}, ${k.use}, ${k.createdAt}, ${c.keyMaxAge}
    from ${customers} as ${c} join ${signingKeys} as ${k} on ${k.customerId} = ${c.id} and ${k.state} = 'current'
    where ${c.keyMaxAge} > 0
    union all
    select ${n.customerId}, ${n.use}, '-infinity', 0
    from ${signingKeys} as ${n} join ${customers} as ${c} on ${c.id} = ${n.customerId}
    where ${n.state} = 'next' and (${n.signsAfter} < ${now} or ${n.alg} <> coalesce(${c.signingAlg}, 'HS512'))
    union all
    select ${c.id}, ${k.use}, '-infinity', 0
    from ${customers} as ${c}
    join ${signingKeys} as ${k} on ${k.customerId} = ${c.id} and ${k.use} = 'access' and ${k.state} = 'current'
    where ${c.signingAlg} <> 'HS512' and ${k.alg} like 'HS%'
  )
  select ${c.id} as "customerId", ${c.rotations}, bool_or(k.use = 'access') as access, bool_or(k.use = 'refresh') as refresh,
    bool_or(k.max_age = 0) as "byPolicy"
  from candidates k
  join ${customers} as ${c} on ${c.id} = k.customer_id and ${c.state} = 'active'
  where ${clockIsTrusted} and k.created_at < ${now}
      - make_interval(secs => max_age * (0.9 + 0.1 * (abs(hashtext(k.customer_id)::bigint) % 1000) / 1000.0))
    and (select count(*) from ${signingKeys} as ${p} where ${p.customerId} = ${c.id} and ${p.state} = 'previous')
      < ${param('mostPrevious')}
    and not exists (
      select from ${signingKeys} as ${n} where ${n.customerId} = ${c.id} and ${n.state} = 'next'
        and ${n.createdAt} > ${now} - make_interval(secs => ${sql.raw(String(PUBLISHED_AHEAD_SECONDS))}))
  group by ${c.id}
  order by min(k.created_at)
  limit ${param('limit')}::int`)
