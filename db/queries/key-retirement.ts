import { bare, type Columns } from '../columns.ts'
import { alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { auditEvents } from '../schema/audit-events.ts'
import { now } from '../schema/common.ts'
import { sessions } from '../schema/sessions.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { type AuditContext, auditInsert } from './audit.ts'
import { AFTER_DEATH, LONGEST_TOKEN, publishedColumns, publishParts } from './change-feed.ts'
import { clockIsTrusted, isHeld } from './database-clock.ts'
import { fromLiveTokens, MAX_COUNTED } from './live-counts.ts'
import { isLive } from './sessions.ts'

/** Retiring a signing key ends it, once no live session or token needs it. */

type Key = Columns<typeof signingKeys>

const k = alias(signingKeys, 'k')
const s = alias(sessions, 's')

/**
 * Selects from the sessions whose current or previous refresh token the key signed. Sessions that expired a moment ago are
 * included, because a refresh that came in time may not have committed yet.
 */
const fromSessionsOf = (key: Key) => sql`from ${sessions} as ${s}
  where ${s.customerId} = ${key.customerId} and ${key.use} = 'refresh'
    and (${s.keyVersion} = ${key.version} or ${s.prevKeyVersion} = ${key.version})
    and ${isLive(s, sql`${now} - ${AFTER_DEATH}`)}`

/**
 * Selects from the access tokens that the key may have signed, with a margin for requests in progress when it
 * began or was replaced.
 */
const fromTokensOf = (key: Key) =>
  fromLiveTokens(sql`(
  select * from ${auditEvents}
  where ${auditEvents.customerId} = ${key.customerId} and ${auditEvents.at} > (select ${now} - ${LONGEST_TOKEN})
    and ${key.use} = 'access'
    and ${auditEvents.at} between ${key.createdAt} - ${AFTER_DEATH} and ${key.replacedAt} + ${AFTER_DEATH})`)

/**
 * Whether no running request can still sign with the key (an answer after a call's deadline signs nothing), and no slow tab can
 * still use the third-newest token of a session, which may have any older version.
 */
const isQuiescent = (
  key: Key,
) => sql`${key.replacedAt} < ${now} - make_interval(secs => ${param('grace')}) - ${AFTER_DEATH}
  and (${key.use} = 'access' or not exists (
    select from ${sessions} as ${s}
    where ${s.customerId} = ${key.customerId} and ${s.prevRotatedAt} > ${now} - make_interval(secs => ${param('grace')})
      and ${s.issuedAt} < ${key.replacedAt} + ${AFTER_DEATH}))`

/** The limit up to which sessions and tokens that need a key are counted. */
const limited = (rows: SQL) =>
  sql<number>`(select count(*)::int from (select ${rows} limit ${sql.raw(String(MAX_COUNTED))}) as found)`

/**
 * Retires the keys that the part `due` (customer_id, use, version) names: `retired` retires them, and `audited` and `changes`
 * audit and publish that, once for each customer.
 */
const retireParts: SQL = sql`
  retired as (
    update ${signingKeys} as ${k} set ${bare(k.state)} = 'retired', ${bare(k.retiredAt)} = ${now}
    from due where ${k.customerId} = due.customer_id and ${k.use} = due.use and ${k.version} = due.version
    returning ${k.customerId}, ${k.use}, ${k.version}, ${k.retiredAt} as t
  ),
  audited as (${auditInsert('secret.retired', 'retired', {
    detail: sql`json_build_object('use', use, 'version', version)::text`,
  })}),
  ${publishParts('customer', '(select distinct customer_id, t from retired) as r', ['audited'])}`

/**
 * Retires the access keys that no live token can have any more: the longest lifetime of a token has passed since each
 * was replaced, so the audit need not be read. Oldest first, in small batches; a row that another replica has locked
 * is skipped.
 */
export const retireAccessKeys = prepared('retireAccessKeys')<
  AuditContext & { limit: number },
  { seq: number | null }
>(sql`
  with due as (
    select ${k.customerId}, ${k.use}, ${k.version}
    from ${signingKeys} as ${k}
    where ${k.state} = 'previous' and ${k.use} = 'access'
      and ${k.replacedAt} < (select ${now} - ${LONGEST_TOKEN} - ${AFTER_DEATH} where ${clockIsTrusted})
    order by ${k.replacedAt}
    limit ${param('limit')}::int
    for update of ${k} skip locked
  ),
  ${retireParts}
  select ${publishedColumns}`)

/** The last key that a pass checked. The next pass continues after it. */
export interface ScanCursor {
  customerId: string
  version: number
}

/** Selects the previous refresh keys after the cursor, or up to it. */
const previousRefreshKeys = (where: '>' | '<=') => sql`
  (select ${signingKeys.customerId}, ${signingKeys.version} from ${signingKeys}
    where ${signingKeys.state} = 'previous' and ${signingKeys.use} = 'refresh'
      and (${signingKeys.customerId}, ${signingKeys.version}) ${sql.raw(where)}
        (${param('customerId')}::text, ${param('version')}::int)
    order by ${signingKeys.customerId}, ${signingKeys.version} limit ${param('window')}::int)`

/**
 * Retires the refresh keys that no session uses any more. Each check reads the customer's sessions, and a key may
 * wait for months.
 *
 * 1. `candidates` are the next `window` keys after the cursor, starting again at the first one after the last one.
 * 2. `due` are those that nothing needs. A row that another replica has locked is skipped.
 * 3. `retired`, `audited` and `changes` retire, audit and publish them (retireParts).
 * 4. `next` is the cursor of the next pass.
 */
export const retireRefreshKeys = prepared('retireRefreshKeys')<
  AuditContext & ScanCursor & { grace: number; window: number },
  { seq: number | null; next: ScanCursor | null }
>(sql`
  with candidates as materialized (
    select customer_id, version, row_number() over () as n
    from (${previousRefreshKeys('>')} union all ${previousRefreshKeys('<=')} limit ${param('window')}::int) as keys
  ),
  due as (
    select ${k.customerId}, ${k.use}, ${k.version}
    from candidates as l
    join ${signingKeys} as ${k} on ${k.customerId} = l.customer_id and ${k.use} = 'refresh' and ${k.version} = l.version
    where ${clockIsTrusted} and ${k.state} = 'previous' and ${isQuiescent(k)} and not exists (select ${fromSessionsOf(k)})
    order by ${k.customerId}, ${k.version}
    for update of ${k} skip locked
  ),
  ${retireParts}
  select ${publishedColumns}, (
    select json_build_object('customerId', customer_id, 'version', version) from candidates order by n desc limit 1
  ) as next`)

export interface RetirementResult {
  /** The state after the statement. */
  state: 'next' | 'current' | 'previous' | 'retired'
  retiredAt: Date | null
  /**
   * The sessions and access tokens that prevent the retirement, because they have the version. The number of tokens is an upper
   * bound. Each is counted up to MAX_COUNTED.
   */
  sessions: number
  tokens: number
  /** Whether a jump of the database's clock prevents the retirement. */
  held: boolean
  /** The change feed's number, if it was retired now. */
  seq: number | null
}

/**
 * Retires one previous version, if no live session or token can have it. The sessions and tokens that it reads may be as old as
 * its wait for the key's row. That is enough: nothing has signed with the key since it was quiescent, so no newer session or
 * token has the version. No row: no such version.
 *
 * 1. `named` locks the key's row.
 * 2. `checked` counts what needs it.
 * 3. `due` is the key, if nothing needs it.
 * 4. `retired`, `audited` and `changes` retire, audit and publish it (retireParts).
 */
export const retireKey = prepared('retireKey')<
  AuditContext & { customerId: string; use: 'access' | 'refresh'; version: number; grace: number },
  RetirementResult
>(sql`
  with named as materialized (
    select * from ${signingKeys} where ${signingKeys.customerId} = ${param('customerId')}
      and ${signingKeys.use} = ${param('use')} and ${signingKeys.version} = ${param('version')}::int for update
  ),
  checked as materialized (
    select k.*, ${isQuiescent(k)} as quiet, ${limited(fromSessionsOf(k))} as sessions,
      ${limited(fromTokensOf(k))} as tokens, ${isHeld} as held
    from named as ${k}
  ),
  due as (select * from checked where state = 'previous' and quiet and sessions = 0 and tokens = 0
    and not held),
  ${retireParts}
  select case when retired.t is null then checked.state else 'retired' end as state,
    coalesce(retired.t, checked.retired_at) as "retiredAt", sessions, tokens, held, ${publishedColumns}
  from checked left join retired on true`)
