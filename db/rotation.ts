import { auditedAs, type Origin } from './audit.ts'
import { AFTER_DEATH, LONGEST_TOKEN, POSITION, type Position, publishing } from './revocations.ts'
import { live } from './sessions.ts'
import { statement } from './statement.ts'

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
export const findRotatable = statement<{ customerId: string }, Rotatable>(`
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
const NARROWED_CUSTOMER = `
  select 'customer' as kind, customer_id, '' as key, 0 as epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after`

/**
 * Puts a new version in place of the current one, for each use whose sealed secret is given. At once (`now`): all older
 * versions are retired with it and, where refresh is among them, the customer's epoch ends every session. No row: another
 * rotation came first, or the customer is not there or disabled.
 */
export const rotateKeys = statement<
  Origin & {
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
  select (select seq from numbered) as seq,
    (select json_agg(json_build_object('use', use, 'version', version) order by use) from inserted) as versions
  from rotating`)

/** The sessions whose current or previous refresh token the key `k` signed. */
const CARRIERS = `from assay.sessions s
  where s.customer_id = k.customer_id and k.use = 'refresh' and (s.key_version = k.version or s.prev_key_version = k.version)
    and ${live('s')}`

export interface SecretRow {
  use: 'access' | 'refresh'
  version: number
  state: 'current' | 'previous' | 'retired'
  alg: string
  createdAt: Date
  replacedAt: Date | null
  retiredAt: Date | null
  liveSessions: number
}

/** The versions of a customer's secrets, never their bytes; newest first. */
export const listSecrets = statement<{ customerId: string }, SecretRow>(`
  select k.use, k.version, k.state, k.alg, k.created_at as "createdAt", k.replaced_at as "replacedAt",
    k.retired_at as "retiredAt", (select count(*) ${CARRIERS}) as "liveSessions"
  from assay.signing_keys k where k.customer_id = :customerId
  order by k.use, k.version desc`)

/**
 * What ending every token of the given uses at once would end: sessions exactly; access tokens at most, for some of those
 * issued in the longest life that any may have were revoked since.
 */
export const countLive = statement<
  { customerId: string; access: boolean; refresh: boolean; longestLife: number },
  { sessions: number; tokens: number }
>(`
  select
    (select count(*) from assay.sessions s where s.customer_id = :customerId and ${live('s')} and :refresh) as sessions,
    (select count(*) from assay.audit_events
      where customer_id = :customerId and token_id is not null and type <> 'token.revoked' and (:access or :refresh)
        and at > assay.now() - make_interval(secs => :longestLife)) as tokens`)

/**
 * Retires the versions that nothing live can carry any more: of access, once the longest life of a token has passed since
 * it was replaced; of refresh, once no session's current or previous token was signed with it, and not within the grace
 * of a slow tab. In small batches; a row that another replica is at is passed over.
 */
export const retireKeys = statement<
  Origin & { grace: number; limit: number },
  { seq: number | null; retired: number }
>(`
  with due as (
    select k.customer_id, k.use, k.version
    from assay.signing_keys k
    where k.state = 'previous' and case k.use
      when 'access' then k.replaced_at < assay.now() - ${LONGEST_TOKEN} - ${AFTER_DEATH}
      else k.replaced_at < assay.now() - make_interval(secs => :grace) - ${AFTER_DEATH}
        and not exists (select ${CARRIERS})
        and not exists (
          select from assay.sessions s
          where s.customer_id = k.customer_id and s.prev_rotated_at > assay.now() - make_interval(secs => :grace)
            and s.issued_at < k.replaced_at + ${AFTER_DEATH})
      end
    order by k.replaced_at
    limit :limit::int
    for update of k skip locked
  ),
  retired as (
    update assay.signing_keys k set state = 'retired', retired_at = assay.now()
    from due where k.customer_id = due.customer_id and k.use = due.use and k.version = due.version
    returning k.customer_id, k.use, k.version, k.retired_at as t
  ),
  audited as (${auditedAs(`'secret.retired'`, 'retired', {
    detail: `json_build_object('use', use, 'version', version)::text`,
  })}),
  narrowed as (${NARROWED_CUSTOMER} from (select distinct customer_id, t from retired) r),
  ${publishing(['audited'])}
  select (select seq from numbered) as seq, (select count(*) from retired) as retired`)

/**
 * Customers whose current key is older than it may be (seconds). Each has an age of its own, up to a tenth less, by its id:
 * those who came together don't rotate together.
 */
export const findAged = statement<
  { maxAge: number; limit: number },
  { customerId: string; rotations: number; access: boolean; refresh: boolean }
>(`
  select c.id as "customerId", c.rotations, bool_or(k.use = 'access') as access, bool_or(k.use = 'refresh') as refresh
  from assay.signing_keys k
  join assay.customers c on c.id = k.customer_id and c.state = 'active'
  where k.state = 'current' and k.created_at < assay.now() - make_interval(secs => 0.9 * :maxAge::float8)
    and k.created_at < assay.now()
      - make_interval(secs => :maxAge * (0.9 + 0.1 * (abs(hashtext(k.customer_id)::bigint) % 1000) / 1000.0))
  group by c.id
  limit :limit::int`)
