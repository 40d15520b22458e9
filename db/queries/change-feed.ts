import type { Connection, Database } from '../client.ts'
import { bare, insertInto, setExcluded } from '../columns.ts'
import { alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { changeFeed } from '../schema/change-feed.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { installation } from '../schema/installation.ts'
import { replicas } from '../schema/replicas.ts'
import { revocations } from '../schema/revocations.ts'
import { epochs } from '../schema/subject-epochs.ts'
import { type AuditContext, auditInsert, auditInsertOfEach } from './audit.ts'
import { COUNTER, POSITION, type Position } from './position.ts'

export type Querier = Pick<Connection, 'query' | 'values'>

type Kind = (typeof revocations.$inferSelect)['kind']

/** One row of the change feed, as the poll returns it: seq, kind, customer id, key, epoch, dead after (NumericDate). */
export type RevocationRow = [number, Kind, string, string, number, number]

/** A change is kept for this long after the last token that it concerns has expired. */
export const AFTER_DEATH = sql`interval '1 minute'`

/** No access token lives longer. */
export const LONGEST_TOKEN = sql`interval '24 hours'`

/**
 * A change of a customer's record is kept this long, whatever the lifetime of its tokens: each replica reloads the
 * record before it checks a token with it. A record in Redis is used for an hour, and a replica without a poll for an
 * hour reloads everything.
 */
const RECORD_CHANGE_KEPT = sql`interval '3 hours'`

interface ChangeColumns {
  customerId?: SQL
  key?: SQL
  epoch?: SQL
  /** When the last token that it concerns expires. */
  lastExpiry?: SQL
}

/**
 * Publishes a change of each row in the part `from`, as the act's last step. `after` names the parts that must be done
 * before: two acts that locked the counter first and waited for each other's rows would deadlock. Without other columns,
 * `from` has `customer_id` and `t`, and every replica reloads the customer.
 *
 * 1. `changes` are the revocations.
 * 2. `ready` counts them, once all of `after` is done, and notes the time.
 * 3. `numbers` moves the counter, or has no row if the counter has been set back since. Its row stays locked only for
 *    the commit. `waited` is the wait for that lock: the update computes it once it has the row. It is a duration and
 *    not a time of day, so it does not depend on a test's clock.
 * 4. `published` writes the changes under their numbers, and fails without one, so that the whole act fails.
 *    Listeners are notified at the commit (db/listen.ts).
 */
export const publishParts = (
  kind: Kind,
  from: string,
  after: string[],
  {
    customerId = sql`customer_id`,
    key = sql`''`,
    epoch = sql`0`,
    lastExpiry = sql`t + ${RECORD_CHANGE_KEPT}`,
  }: ChangeColumns = {},
) => sql`
  changes as (
    select ${sql.raw(`'${kind}'`)} as kind, ${customerId} as customer_id, ${key} as key, ${epoch} as epoch,
      ${lastExpiry} + ${AFTER_DEATH} as dead_after
    from ${sql.raw(from)}
  ),
  ready as materialized (
    select n, clock_timestamp() as at from (select count(*) as n from changes) as counted
    where n > 0 ${sql.raw(after.map(part => `and (select count(*) from ${part}) >= 0`).join(' '))}
  ),
  numbers as (
    update ${changeFeed} set ${bare(changeFeed.seq)} = ${changeFeed.seq} + ready.n from ready
    where ${changeFeed.seq} >= ${COUNTER}
    returning ${bare(changeFeed.seq)}, extract(epoch from clock_timestamp() - ready.at)::float8 as waited
  ),
  published as (
    ${insertInto(revocations, 'seq', 'kind', 'customerId', 'key', 'epoch', 'deadAfter')}
    select numbers.seq + 1 - row_number() over (), kind, customer_id, key, epoch, dead_after
    from changes left join numbers on true, (select pg_notify('assay_changes', '')) as notified
  )`

/** The columns of the change of a session that was ended. */
export const SESSION_END: ChangeColumns = { key: sql`id`, lastExpiry: sql`access_until` }

/** The change feed's number, and the wait for its counter (s); null if there was nothing to publish. */
export const publishedColumns = sql.raw(
  `(select seq from numbers) as seq, (select waited from numbers) as "lockWait"`,
)

/** Reports how long each change waited for the counter, which is part of its result. */
export const observing = (db: Database, onWait: (seconds: number) => void): Database => ({
  ...db,
  query: async <Row>(statement: string, params?: readonly unknown[]) => {
    const rows = await db.query<Row>(statement, params)
    const wait = (rows[0] as { lockWait?: number | null } | undefined)?.lockWait
    if (typeof wait === 'number') onWait(wait)
    return rows
  },
})

export interface Page extends Position {
  /** Milliseconds since 1970, by the database's clock. */
  now: number
  /** JSON of RevocationRow[], ordered by seq; null when there are no new ones. */
  rows: string | null
  /** Whether `rows` contains all new rows. */
  whole: boolean
}

export interface Poll extends Page {
  /** Whether this replica's row was written, so that other replicas wait for it until its next poll is due. */
  written: boolean
  /**
   * The lowest number that every other live replica has applied, and the longest any of them may go without a poll
   * (ms).
   */
  othersApplied: number | null
  othersStaleness: number | null
}

/** The most revocations, and bytes, in one page: applying a page blocks the event loop for less than 5 ms. */
const PAGE_ROWS = 4_000
const PAGE_BYTES = 262_144

const r = alias(revocations, 'r')

/**
 * The next page of live revocations, at the time `at`. Its last row is the one that reaches PAGE_BYTES, so that a page is never
 * empty while there are rows.
 */
const pageSql = (at: SQL) => sql`(
    select json_agg(row order by seq)::text as rows,
      count(*) < ${sql.raw(`${PAGE_ROWS}`)} and coalesce(sum(bytes), 0) < ${sql.raw(`${PAGE_BYTES}`)} as whole
    from (
      select seq, row, octet_length(row::text) as bytes,
        sum(octet_length(row::text)) over (order by seq) - octet_length(row::text) as before
      from (
        select ${r.seq}, json_build_array(${r.seq}, ${r.kind}, ${r.customerId}, ${r.key}, ${r.epoch},
          floor(extract(epoch from ${r.deadAfter}))) as row
        from ${revocations} as ${r}
        where ${r.seq} > ${param('applied')} and ${r.deadAfter} > ${at}
        order by ${r.seq} limit ${sql.raw(`${PAGE_ROWS}`)}
      ) as next
    ) as measured
    where before < ${sql.raw(`${PAGE_BYTES}`)}
  )`

/** Reads the next page only. A replica that has missed many revocations reads them before it polls again. */
export const loadPage = prepared('loadPage')<{ applied: number }, Page>(sql`
  with here as materialized (select ${now} as seen_at)
  select ${POSITION}, (extract(epoch from here.seen_at) * 1000)::float8 as now, page.rows, page.whole
  from here cross join lateral ${pageSql(sql`here.seen_at`)} as page`)

/**
 * The poll reads and commits in one statement: a read-only or full database, and a primary whose standby is gone, can't answer
 * it, so neither is mistaken for the primary. If `write` is false, Postgres only locks the replica's row for the length of the
 * statement. That commits as an update does, and leaves no dead row. A row that is older than half of its bound by the database's
 * clock is written in any case, because the clock was set.
 *
 * 1. `clock` notes the time.
 * 2. `written` has a row if the number that this replica has applied, and the time, were written.
 * 3. `others` has the numbers that the other live replicas have applied.
 * 4. The answer has the position and the next page of revocations.
 */
export const poll = prepared('poll')<
  { replica: string; version: string; applied: number; maxStaleness: number; write: boolean },
  Poll
>(sql`
  with clock as materialized (select ${now} as at),
  written as (
    ${insertInto(replicas, 'id', 'version', 'applied', 'maxStaleness', 'seenAt')}
    select ${param('replica')}, ${param('version')},
      least(${param('applied')}, ${COUNTER}), ${param('maxStaleness')}, clock.at
    from clock
    on conflict (${bare(replicas.id)}) do update
      set ${setExcluded(replicas, 'version', 'applied', 'maxStaleness', 'seenAt')}
      where ${param('write')} or ${replicas.seenAt} < excluded.seen_at - make_interval(secs => ${replicas.maxStaleness} / 2000.0)
    returning 1
  ), others as (
    select min(${replicas.applied}) as applied, max(${replicas.maxStaleness}) as staleness
    from ${replicas}, clock
    where ${replicas.id} <> ${param('replica')}
      and ${replicas.seenAt} > clock.at - make_interval(secs => ${replicas.maxStaleness} / 1000.0)
  )
  select ${POSITION},
    (extract(epoch from clock.at) * 1000)::float8 as now,
    exists (select from written) as written,
    others.applied as "othersApplied",
    others.staleness as "othersStaleness",
    page.rows, page.whole
  from clock cross join others cross join lateral ${pageSql(sql`clock.at`)} as page`)

/** Several acts that share a statement, as JSON of their parts. */
export interface Acts {
  acts: string
}

/** The part of an act that `auditInsertOfEach` needs. */
export interface Act {
  customer_id: string
  actor: string
  ip: string | undefined
  user_agent: string | undefined
}

export interface TokenRevocation extends Act {
  token_id: string
  subject: string
  /** The token's exp. */
  expires_at: number
}

/** Revokes access tokens until their exp (acts: TokenRevocation[]). Returns the change feed's number after all of them. */
export const insertRevokedTokens = prepared('insertRevokedTokens')<Acts, { seq: number }>(sql`
  with acts as materialized (
    select *, ${now} as t from jsonb_to_recordset(${param('acts')}::text::jsonb) as act (
      customer_id text, token_id text, subject text, expires_at float8, actor text, ip text, user_agent text)
  ),
  audited as (${auditInsertOfEach('token.revoked', 'acts', { subject: sql`subject`, token: sql`token_id` })}),
  ${publishParts('token', 'acts', ['audited'], {
    key: sql`token_id`,
    lastExpiry: sql`to_timestamp(expires_at)`,
  })}
  select ${publishedColumns}`)

export const nextEpoch = sql.raw(`nextval('${epochs.schema}.${epochs.seqName}')`)

/**
 * Deletes the customer's earlier row of this kind and key, in the part `of`, because the new row includes it. The statement has
 * locked the customer's row, so no other statement replaces the same row.
 */
export const deleteReplaced = (kind: 'subject' | 'customer', of: string, key = sql`''`) => sql`
  delete from ${revocations} using ${sql.raw(of)} as new
  where ${revocations.kind} = ${sql.raw(`'${kind}'`)} and ${revocations.customerId} = new.customer_id
    and ${revocations.key} = ${key}
  returning 1`

/** Ends every token and session of a customer that began before. No row: no such customer. */
export const raiseCustomerEpoch = prepared('raiseCustomerEpoch')<
  AuditContext & { customerId: string },
  { seq: number }
>(sql`
  with raised as (
    update ${customers} set ${bare(customers.epoch)} = ${nextEpoch} where ${customers.id} = ${param('customerId')}
    returning ${customers.id} as customer_id, ${now} as t
  ),
  replaced as (${deleteReplaced('customer', 'raised')}),
  audited as (${auditInsert('customer.revoked', 'raised', { subject: sql`customer_id` })}),
  ${publishParts('customer', 'raised', ['replaced', 'audited'])}
  select ${publishedColumns} from raised`)

/**
 * A token or session of any customer with a lower epoch is dead. The epoch is never deleted, because sessions outlive its row on
 * the change feed.
 */
export const EVERYONES_EPOCH: SQL = sql`(select ${installation.epoch} from ${installation})`

/**
 * Ends every token and session of every customer that began before, by raising the epoch that they all share. That is a single
 * write, whatever their number. Returns the change feed's number and the new epoch.
 */
export const raiseEveryonesEpoch = prepared('raiseEveryonesEpoch')<
  AuditContext,
  { seq: number; epoch: number }
>(sql`
  with raised as (
    update ${installation} set ${bare(installation.epoch)} = ${nextEpoch}
    returning null::text as customer_id, ${installation.epoch}, ${now} as t
  ),
  audited as (${auditInsert('everyone.revoked', 'raised')}),
  ${publishParts('everyone', 'raised', ['audited'], {
    customerId: sql`''`,
    epoch: sql`epoch`,
    lastExpiry: sql`t + ${LONGEST_TOKEN}`,
  })}
  select ${publishedColumns}, epoch from raised`)
