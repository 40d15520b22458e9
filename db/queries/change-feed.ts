import type { Connection, Database } from '../client.ts'
import { statement } from '../statement.ts'
import { type AuditContext, auditedAs, OF_EACH_ROW } from './audit.ts'

/** One row of the change feed, as the poll brings it: seq, kind, customer id, key, epoch, dead after (NumericDate). */
export type RevocationRow = [
  number,
  'token' | 'session' | 'subject' | 'customer' | 'everyone',
  string,
  string,
  number,
  number,
]

/**
 * Publishes what the part `narrowed` lists (kind, customer_id, key, epoch, dead_after) and takes the next numbers for
 * it, as the act's last step: the counter's row stays locked only for the commit. `after` names the parts that must be
 * done before; two acts that took the counter first and waited for each other's rows would deadlock. Whoever listens is
 * told at the commit (db/listen.ts). How long the lock was waited for is measured around it: `ready` is done before the update
 * begins, and what the update returns is worked out once it has the row. A duration is no time of day, so that a test's
 * clock has no part in it.
 */
export const publishing = (after: string[]) => `
  ready as materialized (
    select n, clock_timestamp() as at from (select count(*) as n from narrowed) as counted
    where n > 0 ${after.map(part => `and (select count(*) from ${part}) >= 0`).join(' ')}
  ),
  numbered as (
    update assay.change_feed set seq = seq + ready.n from ready
    returning seq, extract(epoch from clock_timestamp() - ready.at)::float8 as waited
  ),
  published as (
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select numbered.seq + 1 - row_number() over (), kind, customer_id, key, epoch, dead_after
    from narrowed, numbered, (select pg_notify('assay_changes', '')) as hinted
  )`

/** The columns of a Published. */
export const PUBLISHED = `(select seq from numbered) as seq, (select waited from numbered) as "lockWait"`

/** The change feed's number, and how long its counter was waited for (s); null where there was nothing to publish. */
export interface Published {
  seq: number | null
  lockWait: number | null
}

/** Tells of each act's wait for the counter, which comes with its answer. */
export const observing = (db: Database, onWait: (seconds: number) => void): Database => ({
  ...db,
  query: async <Row>(statement: string, params?: readonly unknown[]) => {
    const rows = await db.query<Row>(statement, params)
    const wait = (rows[0] as Partial<Published> | undefined)?.lockWait
    if (typeof wait === 'number') onWait(wait)
    return rows
  },
})

/** Added to the moment when the last token concerned is dead by itself. */
export const AFTER_DEATH = `interval '1 minute'`

/** No access token lives longer: how long a change of a customer, a key or an epoch can concern one. */
export const LONGEST_TOKEN = `interval '24 hours'`

/**
 * What the state rests on, read with whatever is decided by it: the counter, whether this is a standby, and the system
 * and timeline. A failover to another timeline may have lost commits; numbers compare on one timeline only.
 */
export const POSITION = `
  (select seq from assay.change_feed) as seq,
  pg_is_in_recovery() as standby,
  (select system_identifier from pg_control_system()) || '/' || case when pg_is_in_recovery() then 'standby'
    else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end as timeline`

export interface Position {
  seq: number
  standby: boolean
  timeline: string
}

export interface Poll extends Position {
  /** Milliseconds since 1970, by the database's clock. */
  now: number
  /** JSON of RevocationRow[], by seq; null when there is none. */
  rows: string | null
  /** The lowest number that every other live replica has applied, and the longest any of them may go without a poll (ms). */
  othersApplied: number | null
  othersStaleness: number | null
}

/** Revocations that one poll brings at most, so that it stays well within its deadline; more take more polls. */
export const PAGE = 20_000

/** Read and written in one: a read-only or full database can't answer it, and so is never taken for the primary. */
export const poll = statement('poll')<
  { replica: string; version: string; applied: number; maxStaleness: number },
  Poll
>(`
  with here as (
    insert into assay.replicas (id, version, applied, max_staleness, seen_at)
    values (:replica, :version, least(:applied, (select seq from assay.change_feed)), :maxStaleness, assay.now())
    on conflict (id) do update
      set version = excluded.version, applied = excluded.applied, max_staleness = excluded.max_staleness, seen_at = excluded.seen_at
    returning seen_at
  ), others as (
    select min(applied) as applied, max(max_staleness) as staleness
    from assay.replicas, here
    where id <> :replica and replicas.seen_at > here.seen_at - make_interval(secs => max_staleness / 1000.0)
  )
  select ${POSITION},
    (extract(epoch from here.seen_at) * 1000)::float8 as now,
    others.applied as "othersApplied",
    others.staleness as "othersStaleness",
    (select json_agg(json_build_array(r.seq, r.kind, r.customer_id, r.key, r.epoch,
        floor(extract(epoch from r.dead_after))) order by r.seq)
      from (select * from assay.revocations
        where seq > :applied and dead_after > here.seen_at order by seq limit ${PAGE}) r)::text as rows
  from here, others`)

/** Several acts that share a statement, as JSON of their parts. */
export interface Acts {
  acts: string
}

export interface TokenRevocation {
  customer_id: string
  token_id: string
  subject: string
  /** The token's exp. */
  expires_at: number
  actor: string
  ip: string | undefined
  user_agent: string | undefined
}

/** Ends access tokens until their exp (acts: TokenRevocation[]). Answers the change feed's number once all are in. */
export const insertRevokedTokens = statement('insertRevokedTokens')<Acts, { seq: number }>(`
  with acts as materialized (
    select *, assay.now() as t from jsonb_to_recordset(:acts::text::jsonb) as act (
      customer_id text, token_id text, subject text, expires_at float8, actor text, ip text, user_agent text)
  ),
  audited as (${auditedAs(`'token.revoked'`, 'acts', { subject: 'subject', token: 'token_id', ...OF_EACH_ROW })}),
  narrowed as (
    select 'token' as kind, customer_id, token_id as key, 0 as epoch,
      to_timestamp(expires_at) + ${AFTER_DEATH} as dead_after
    from acts
  ), ${publishing(['audited'])}
  select ${PUBLISHED}`)

/**
 * Ends every token and session of a subject that began before, by moving its epoch. A token issued in the race carries the
 * old one. Answers the change feed's number and the new epoch.
 */
export const raiseSubjectEpoch = statement('raiseSubjectEpoch')<
  AuditContext & { customerId: string; subject: string },
  { seq: number; epoch: number }
>(`
  with raised as (
    insert into assay.subject_epochs (customer_id, subject, epoch, changed_at)
    values (:customerId, :subject, nextval('assay.epochs'), assay.now())
    on conflict (customer_id, subject) do update
      set epoch = nextval('assay.epochs'), changed_at = assay.now() -- Taken anew: the row's lock may have been waited for.
    returning customer_id, subject, epoch, changed_at as t
  ),
  audited as (${auditedAs(`'subject.revoked'`, 'raised', { subject: 'subject' })}),
  narrowed as (
    select 'subject' as kind, customer_id, subject as key, epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after
    from raised
  ),
  ${publishing(['audited'])}
  select ${PUBLISHED}, epoch from raised`)

/** Ends every token and session of a customer that began before. No row: no such customer. */
export const raiseCustomerEpoch = statement('raiseCustomerEpoch')<
  AuditContext & { customerId: string },
  { seq: number }
>(`
  with raised as (
    update assay.customers set epoch = nextval('assay.epochs') where id = :customerId
    returning id as customer_id, assay.now() as t
  ),
  audited as (${auditedAs(`'customer.revoked'`, 'raised', { subject: 'customer_id' })}),
  narrowed as (
    select 'customer' as kind, customer_id, '' as key, 0 as epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after
    from raised
  ),
  ${publishing(['audited'])}
  select ${PUBLISHED} from raised`)

/** What no token and no session may carry less of, whosever it is. Kept for good: sessions outlive the row on the change feed. */
export const EVERYONES_EPOCH = '(select epoch from assay.installation)'

/**
 * Ends every token and session of every customer that began before, by moving the epoch that they all share: one write,
 * however many there are. Answers the change feed's number and the new epoch.
 */
export const raiseEveryonesEpoch = statement('raiseEveryonesEpoch')<
  AuditContext,
  { seq: number; epoch: number }
>(`
  with raised as (
    update assay.installation set epoch = nextval('assay.epochs')
    returning null::text as customer_id, epoch, assay.now() as t
  ),
  audited as (${auditedAs(`'everyone.revoked'`, 'raised')}),
  narrowed as (
    select 'everyone' as kind, '' as customer_id, '' as key, epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after
    from raised
  ),
  ${publishing(['audited'])}
  select ${PUBLISHED}, epoch from raised`)

export type Querier = Pick<Connection, 'query'>
