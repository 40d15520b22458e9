import { statement } from '../statement.ts'
import { type AuditContext, auditedAs } from './audit.ts'
import { AFTER_DEATH, LONGEST_TOKEN, POSITION, type Position, PUBLISHED, publishing } from './change-feed.ts'

/** What a rotation starts from. */
export interface Rotatable extends Position {
  rotations: number
  sealedDataKey: Uint8Array
  accessVersion: number
  refreshVersion: number
  /** Versions that still verify beside the current ones. */
  previous: number
}

/** No row: no such customer, or a disabled one. */
export const findRotatable = statement('findRotatable')<{ customerId: string }, Rotatable>(`
  select ${POSITION}, c.rotations, c.sealed_data_key as "sealedDataKey",
    a.version as "accessVersion", r.version as "refreshVersion",
    (select count(*) from assay.signing_keys k where k.customer_id = c.id and k.state = 'previous') as previous
  from assay.customers c
  join assay.signing_keys a on a.customer_id = c.id and a.use = 'access' and a.state = 'current'
  join assay.signing_keys r on r.customer_id = c.id and r.use = 'refresh' and r.state = 'current'
  where c.id = :customerId and c.state = 'active'`)

/**
 * Every change of a customer's keys is published as one of the customer: its record is read anew whole. A rotation that
 * ends nothing too, for a replica may hold the new version's kid as gone, if a failover lost that version once.
 */
export const NARROWED_CUSTOMER = `
  select 'customer' as kind, customer_id, '' as key, 0 as epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after`

/**
 * Puts a new version in place of the current one, for each use whose sealed secret is given. At once (`now`): all older
 * versions are retired with it and, where refresh is among them, the customer's epoch ends every session. No row: another
 * rotation came first, or the customer is not there or disabled.
 */
export const rotateKeys = statement('rotateKeys')<
  AuditContext & {
    customerId: string
    rotations: number
    sealedAccess: Uint8Array | undefined
    sealedRefresh: Uint8Array | undefined
    now: boolean
    reason: string
  },
  { seq: number; versions: { use: 'access' | 'refresh'; version: number }[] }
>(`
  with rotating as (
    update assay.customers set rotations = rotations + 1,
      epoch = case when :now and :sealedRefresh::bytea is not null then nextval('assay.epochs') else epoch end
    where id = :customerId and rotations = :rotations and state = 'active'
    returning id as customer_id, assay.now() as t
  ),
  made as (
    select * from (values ('access', :sealedAccess::bytea), ('refresh', :sealedRefresh::bytea)) as made (use, sealed)
    where sealed is not null
  ),
  replaced as (
    update assay.signing_keys k
    set state = case when :now then 'retired' else 'previous' end,
      replaced_at = coalesce(k.replaced_at, t), retired_at = case when :now then t end
    from rotating, made
    where k.customer_id = rotating.customer_id and k.use = made.use
      and (k.state = 'current' or :now and k.state = 'previous')
    returning k.use, k.version, t
  ),
  inserted as (
    insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret, created_at)
    select customer_id, made.use, 1 + (select max(version) from replaced where replaced.use = made.use),
      'current', 'HS512', sealed, t
    from rotating, made
    returning use, version
  ),
  audited as (${auditedAs(`'secret.rotated'`, 'rotating', {
    detail: `json_build_object('now', :now, 'reason', :reason::text,
      'versions', (select json_object_agg(use, version) from inserted))::text`,
  })}),
  narrowed as (${NARROWED_CUSTOMER} from rotating),
  ${publishing(['audited', 'inserted'])}
  select ${PUBLISHED},
    (select json_agg(json_build_object('use', use, 'version', version) order by use) from inserted) as versions
  from rotating`)

/**
 * Customers whose current key is older than it may be, by their policy or else by `maxAge` (s; 0: never); the oldest first, so
 * that those whose policy has a short age don't take every place. Each has an age of its own, up to a tenth less, by its id:
 * those who came together don't rotate together. Who has as many older versions as may verify waits until some retire.
 */
export const findAged = statement('findAged')<
  { maxAge: number; mostPrevious: number; limit: number },
  { customerId: string; rotations: number; access: boolean; refresh: boolean }
>(`
  with candidates as (
    select customer_id, use, created_at, :maxAge::float8 as max_age
    from assay.signing_keys k
    where state = 'current' and created_at < (select assay.now() - make_interval(secs => 0.9 * :maxAge::float8)) and :maxAge > 0
      and not exists (select from assay.customers c where c.id = k.customer_id and c.key_max_age is not null)
    union all
    select c.id, k.use, k.created_at, c.key_max_age
    from assay.customers c join assay.signing_keys k on k.customer_id = c.id and k.state = 'current'
    where c.key_max_age > 0
  )
  select c.id as "customerId", c.rotations, bool_or(k.use = 'access') as access, bool_or(k.use = 'refresh') as refresh
  from candidates k
  join assay.customers c on c.id = k.customer_id and c.state = 'active'
  where k.created_at < assay.now()
      - make_interval(secs => max_age * (0.9 + 0.1 * (abs(hashtext(k.customer_id)::bigint) % 1000) / 1000.0))
    and (select count(*) from assay.signing_keys p where p.customer_id = c.id and p.state = 'previous') < :mostPrevious
  group by c.id
  order by min(k.created_at)
  limit :limit::int`)
