import { statement } from '../statement.ts'
import { type AuditContext, auditedAs } from './audit.ts'
import { AFTER_DEATH, LONGEST_TOKEN, PUBLISHED, publishing } from './change-feed.ts'
import { NARROWED_CUSTOMER } from './key-rotation.ts'
import { live } from './sessions.ts'

/** What still needs a customer's secrets, and the end of those that nothing needs any more. */

/**
 * The sessions whose current or previous refresh token the key `k` signed. One that expired a moment ago is among them:
 * a refresh that came in time may not have committed yet.
 */
const CARRIERS = `from assay.sessions s
  where s.customer_id = k.customer_id and k.use = 'refresh' and (s.key_version = k.version or s.prev_key_version = k.version)
    and ${live('s', `assay.now() - ${AFTER_DEATH}`)}`

/**
 * The customer's access tokens that may live, at most: the audit has each that was issued. It lives for as long as those of
 * its session do, or as its event says, or as any may; some were revoked since.
 */
const liveTokens = (customerId: string) => `from assay.audit_events e
  left join assay.sessions s on s.customer_id = e.customer_id and s.id = e.session_id
  where e.customer_id = ${customerId} and e.at > (select assay.now() - ${LONGEST_TOKEN})
    and e.token_id is not null and e.type <> 'token.revoked' and s.revoked_at is null
    and assay.now() < e.at + coalesce(make_interval(secs => s.access_ttl),
      make_interval(secs => (e.detail::json->>'expires_in')::int), ${LONGEST_TOKEN})`

/** Of those, the ones that the key `k` may have signed: requests under way when it began or was replaced are among them. */
const SIGNED = `${liveTokens('k.customer_id')} and k.use = 'access'
  and e.at between k.created_at - ${AFTER_DEATH} and k.replaced_at + ${AFTER_DEATH}`

/**
 * Nothing is under way that could still sign with the key `k`: an answer that comes later than a call's deadline signs
 * nothing. Nor has a slow tab the last token but two of a session, which may be of any version that is older.
 */
const QUIESCENT = `k.replaced_at < assay.now() - make_interval(secs => :grace) - ${AFTER_DEATH}
  and (k.use = 'access' or not exists (
    select from assay.sessions s
    where s.customer_id = k.customer_id and s.prev_rotated_at > assay.now() - make_interval(secs => :grace)
      and s.issued_at < k.replaced_at + ${AFTER_DEATH}))`

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
export const listSecrets = statement('listSecrets')<{ customerId: string }, SecretRow>(`
  select k.use, k.version, k.state, k.alg, k.created_at as "createdAt", k.replaced_at as "replacedAt",
    k.retired_at as "retiredAt", (select count(*) ${CARRIERS}) as "liveSessions"
  from assay.signing_keys k where k.customer_id = :customerId
  order by k.use, k.version desc`)

/** What ending every token of the given uses at once would end: sessions exactly, access tokens at most. */
export const countLive = statement('countLive')<
  { customerId: string; access: boolean; refresh: boolean },
  { sessions: number; tokens: number }
>(`
  select
    (select count(*) from assay.sessions s where s.customer_id = :customerId and ${live('s')} and :refresh) as sessions,
    (select count(*) ${liveTokens(':customerId')} and (:access or :refresh)) as tokens`)

/** Retires the keys that the part `due` names. */
const RETIRING = `
  retired as (
    update assay.signing_keys k set state = 'retired', retired_at = assay.now()
    from due where k.customer_id = due.customer_id and k.use = due.use and k.version = due.version
    returning k.customer_id, k.use, k.version, k.retired_at as t
  ),
  audited as (${auditedAs(`'secret.retired'`, 'retired', {
    detail: `json_build_object('use', use, 'version', version)::text`,
  })}),
  narrowed as (${NARROWED_CUSTOMER} from (select distinct customer_id, t from retired) r),
  ${publishing(['audited'])}`

/**
 * Retires the access keys that nothing live can carry any more: once the longest life of a token has passed since each was
 * replaced, which costs no look into the audit. Oldest first, in small batches; a row that another replica is at is passed
 * over.
 */
export const retireAccessKeys = statement('retireAccessKeys')<
  AuditContext & { limit: number },
  { seq: number | null }
>(`
  with due as (
    select k.customer_id, k.use, k.version
    from assay.signing_keys k
    where k.state = 'previous' and k.use = 'access'
      and k.replaced_at < (select assay.now() - ${LONGEST_TOKEN} - ${AFTER_DEATH})
    order by k.replaced_at
    limit :limit::int
    for update of k skip locked
  ),
  ${RETIRING}
  select ${PUBLISHED}`)

/** Where the next pass goes on: the last key that this one looked at. */
export interface ScanCursor {
  customerId: string
  version: number
}

/** Of the refresh keys that may be retired, those behind a place, or before it. */
const lookedAt = (behind: '>' | '<=') => `
  (select customer_id, version from assay.signing_keys
    where state = 'previous' and use = 'refresh' and (customer_id, version) ${behind} (:customerId::text, :version::int)
    order by customer_id, version limit :window::int)`

/**
 * Retires the refresh keys that no session carries any more. Whether one does takes a look at its customer's sessions, and
 * a key may wait for months: a pass looks at `window` of them, and the next one goes on where it ended. A row that another
 * replica is at is passed over.
 */
export const retireRefreshKeys = statement('retireRefreshKeys')<
  AuditContext & ScanCursor & { grace: number; window: number },
  { seq: number | null; next: ScanCursor | null }
>(`
  with looked_at as materialized (
    select customer_id, version, row_number() over () as n
    from (${lookedAt('>')} union all ${lookedAt('<=')} limit :window::int) as looked_at
  ),
  due as (
    select k.customer_id, k.use, k.version
    from looked_at l
    join assay.signing_keys k on k.customer_id = l.customer_id and k.use = 'refresh' and k.version = l.version
    where k.state = 'previous' and ${QUIESCENT} and not exists (select ${CARRIERS})
    order by k.customer_id, k.version
    for update of k skip locked
  ),
  ${RETIRING}
  select ${PUBLISHED}, (
    select json_build_object('customerId', customer_id, 'version', version) from looked_at order by n desc limit 1
  ) as next`)

export interface Retired {
  /** As it is after the statement. */
  state: SecretRow['state']
  retiredAt: Date | null
  /** What forbids it: sessions that carry the version, and at most so many access tokens. */
  sessions: number
  tokens: number
  /** The change feed's number, if it was retired now. */
  seq: number | null
}

/**
 * Retires one previous version, if nothing live can carry it. What it reads may be as old as its wait for the key's row; no
 * new carrier can have come meanwhile, for nothing has signed with the key since it was quiet. No row: no such version.
 */
export const retireKey = statement('retireKey')<
  AuditContext & { customerId: string; use: 'access' | 'refresh'; version: number; grace: number },
  Retired
>(`
  with named as materialized (
    select * from assay.signing_keys where customer_id = :customerId and use = :use and version = :version::int for update
  ),
  weighed as materialized (
    select k.*, ${QUIESCENT} as quiet, (select count(*) ${CARRIERS}) as sessions, (select count(*) ${SIGNED}) as tokens
    from named k
  ),
  due as (select * from weighed where state = 'previous' and quiet and sessions = 0 and tokens = 0),
  ${RETIRING}
  select case when retired.t is null then k.state else 'retired' end as state,
    coalesce(retired.t, k.retired_at) as "retiredAt", sessions::int, tokens::int, ${PUBLISHED}
  from weighed k left join retired on true`)
