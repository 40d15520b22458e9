import { bare, insertInto } from '../columns.ts'
import { alias, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { type AuditContext, auditInsert } from './audit.ts'
import { nextEpoch, POSITION, type Position, publishedColumns, publishParts } from './change-feed.ts'
import { customerWithKeys } from './customer-keys.ts'
import { clockIsTrusted } from './database-clock.ts'

/** A rotation starts from this. */
export interface Rotatable extends Position {
  rotations: number
  sealedDataKey: Uint8Array
  accessVersion: number
  refreshVersion: number
  /** Versions that still verify beside the current ones. */
  previous: number
}

const { c, a, r } = customerWithKeys
const k = alias(signingKeys, 'k')
const p = alias(signingKeys, 'p')

/** No row: no such customer, or a disabled one. */
export const findRotatable = prepared('findRotatable')<{ customerId: string }, Rotatable>(sql`
  select ${POSITION}, ${c.rotations}, ${c.sealedDataKey} as "sealedDataKey",
    ${a.version} as "accessVersion", ${r.version} as "refreshVersion",
    (select count(*) from ${signingKeys} as ${k} where ${k.customerId} = ${c.id} and ${k.state} = 'previous') as previous
  ${customerWithKeys.from}
  where ${c.id} = ${param('customerId')} and ${c.state} = 'active'`)

/**
 * Puts a new version in place of the current one, for each use whose sealed secret is given. At once (`now`): all older
 * versions are retired with it and, where refresh is among them, the customer's epoch ends every session and every
 * access token, those without a session too. No row: another rotation came first, or the customer is not there or disabled.
 *
 * Every change of a customer's keys is published as one of the customer: replicas reload its whole record. A rotation
 * that ends nothing is published too, for a replica may hold the new version's kid as gone, if a failover lost that
 * version once.
 *
 * 1. `rotating` counts the rotation, if the caller has seen the latest one: of two at once, one finds another count.
 * 2. `secrets` are the new ones.
 * 3. `replaced` makes the current versions previous or retired.
 * 4. `inserted` inserts the new versions.
 * 5. `audited` and `changes` audit and publish it.
 */
export const rotateKeys = prepared('rotateKeys')<
  AuditContext & {
    customerId: string
    rotations: number
    sealedAccess: Uint8Array | undefined
    sealedRefresh: Uint8Array | undefined
    now: boolean
    reason: string
  },
  { seq: number; versions: { use: 'access' | 'refresh'; version: number }[] }
>(sql`
  with rotating as (
    update ${customers} set ${bare(customers.rotations)} = ${customers.rotations} + 1,
      ${bare(customers.epoch)} = case when ${param('now')} and ${param('sealedRefresh')}::bytea is not null
        then ${nextEpoch} else ${customers.epoch} end
    where ${customers.id} = ${param('customerId')} and ${customers.rotations} = ${param('rotations')}
      and ${customers.state} = 'active'
    returning ${customers.id} as customer_id, ${now} as t
  ),
  secrets as (
    select * from (values ('access', ${param('sealedAccess')}::bytea), ('refresh', ${param('sealedRefresh')}::bytea))
      as given (use, sealed)
    where sealed is not null
  ),
  replaced as (
    update ${signingKeys} as ${k}
    set ${bare(k.state)} = case when ${param('now')} then 'retired' else 'previous' end,
      ${bare(k.replacedAt)} = coalesce(${k.replacedAt}, t), ${bare(k.retiredAt)} = case when ${param('now')} then t end
    from rotating, secrets
    where ${k.customerId} = rotating.customer_id and ${k.use} = secrets.use
      and (${k.state} = 'current' or ${param('now')} and ${k.state} = 'previous')
    returning ${k.use}, ${k.version}, t
  ),
  inserted as (
    ${insertInto(signingKeys, 'customerId', 'use', 'version', 'state', 'alg', 'sealedSecret', 'createdAt')}
    select customer_id, secrets.use, 1 + (select max(version) from replaced where replaced.use = secrets.use),
      'current', 'HS512', sealed, t
    from rotating, secrets
    returning ${signingKeys.use}, ${signingKeys.version}
  ),
  audited as (${auditInsert('secret.rotated', 'rotating', {
    detail: sql`json_build_object('now', ${param('now')}, 'reason', ${param('reason')}::text,
      'versions', (select json_object_agg(use, version) from inserted))::text`,
  })}),
  ${publishParts('customer', 'rotating', ['audited', 'inserted'])}
  select ${publishedColumns},
    (select json_agg(json_build_object('use', use, 'version', version) order by use) from inserted) as versions
  from rotating`)

/**
 * Customers whose current key is older than it may be, by their policy or else by `maxAge` (s; 0: never). The oldest
 * come first, so that those whose policy has a short age don't take every place.
 *
 * 1. `candidates` are the current keys of customers without an age of their own, found by the index on age, and those
 *    of the customers with one.
 * 2. Each of them has an age up to a tenth less, by its id: customers that came together don't rotate together. A
 *    customer with as many older versions as may verify waits until some retire.
 *
 * None while the clock is not trusted: a key made while the clock is ahead would be too young for as long.
 */
export const findAged = prepared('findAged')<
  { maxAge: number; mostPrevious: number; limit: number },
  { customerId: string; rotations: number; access: boolean; refresh: boolean }
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
  )
  select ${c.id} as "customerId", ${c.rotations}, bool_or(k.use = 'access') as access, bool_or(k.use = 'refresh') as refresh
  from candidates k
  join ${customers} as ${c} on ${c.id} = k.customer_id and ${c.state} = 'active'
  where ${clockIsTrusted} and k.created_at < ${now}
      - make_interval(secs => max_age * (0.9 + 0.1 * (abs(hashtext(k.customer_id)::bigint) % 1000) / 1000.0))
    and (select count(*) from ${signingKeys} as ${p} where ${p.customerId} = ${c.id} and ${p.state} = 'previous')
      < ${param('mostPrevious')}
  group by ${c.id}
  order by min(k.created_at)
  limit ${param('limit')}::int`)
