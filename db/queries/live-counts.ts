import { bareList, type Columns } from '../columns.ts'
import { alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { auditEvents } from '../schema/audit-events.ts'
import { now } from '../schema/common.ts'
import { sessions } from '../schema/sessions.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { AFTER_DEATH, LONGEST_TOKEN } from './change-feed.ts'
import { isLive } from './sessions.ts'

/**
 * Counts the sessions and tokens that a customer's signing keys still have to verify. A customer may have millions of
 * them, so each statement reads only the newest ones, and returns whether there are more.
 */

/** The sessions, and audit events, that one statement reads. */
export const MAX_COUNTED = 2_000

const k = alias(signingKeys, 'k')
const s = alias(sessions, 's')
const e = alias(auditEvents, 'e')

/** The newest sessions of the customer, and one more than are counted. */
const newestSessions: SQL = sql`
  select * from ${sessions} where ${sessions.customerId} = ${param('customerId')}
  order by ${sessions.issuedAt} desc, ${sessions.id} desc limit ${sql.raw(String(MAX_COUNTED + 1))}`

/** The newest events of the customer in which a token that may be live was issued, and one more than are counted. */
const newestEvents: SQL = sql`
  select * from ${auditEvents}
  where ${auditEvents.customerId} = ${param('customerId')} and ${auditEvents.at} > (select ${now} - ${LONGEST_TOKEN})
  order by ${auditEvents.at} desc, ${auditEvents.id} desc limit ${sql.raw(String(MAX_COUNTED + 1))}`

/**
 * Whether the event issued an access token that may be live. The token has the lifetime of its session's tokens, or the one in
 * its event, or else the longest possible one. It may have been revoked since.
 */
const issuedLiveToken = (event: Columns<typeof auditEvents>, session: Columns<typeof sessions>) => sql`
  ${event.tokenId} is not null and ${event.type} <> 'token.revoked' and ${session.revokedAt} is null
    and ${now} < ${event.at} + coalesce(make_interval(secs => ${session.accessTtl}),
      make_interval(secs => (${event.detail}::json->>'expires_in')::int), ${LONGEST_TOKEN})`

/** Selects from the access tokens of the customer that may be live, by the events that `events` selects. */
export const fromLiveTokens = (events: SQL) => sql`from ${events} as ${e}
  left join ${sessions} as ${s} on ${s.customerId} = ${e.customerId} and ${s.id} = ${e.sessionId}
  where ${issuedLiveToken(e, s)}`

export interface Losses {
  sessions: number
  /** An upper bound of the access tokens, unless `partial`. */
  tokens: number
  /** True if there are more: only the newest MAX_COUNTED sessions, or events, were read. */
  partial: boolean
}

/** Counts what ending every token of the given uses would end. */
export const countLive = prepared('countLive')<
  { customerId: string; access: boolean; refresh: boolean },
  Losses
>(sql`
  with looked_at as materialized (${newestSessions}),
  events as materialized (${newestEvents})
  select
    (select count(*) from looked_at as ${s} where ${isLive(s)} and ${param('refresh')})::int as sessions,
    (select count(*) ${fromLiveTokens(sql`events`)} and (${param('access')} or ${param('refresh')}))::int as tokens,
    (select count(*) from looked_at) > ${sql.raw(String(MAX_COUNTED))}
      or (select count(*) from events) > ${sql.raw(String(MAX_COUNTED))} as partial`)

/** A version of a secret, without its bytes. */
export interface SecretRow
  extends Pick<typeof signingKeys.$inferSelect, 'use' | 'version' | 'state' | 'alg' | 'createdAt'> {
  replacedAt: Date | null
  retiredAt: Date | null
  /**
   * For a refresh secret: the number of sessions that use it. Null if the customer has more sessions than are
   * counted.
   */
  liveSessions: number | null
}

/** The most retired versions that are listed for each use. All verifying versions are listed. */
const MAX_RETIRED = 100

/**
 * The versions of a customer's secrets; newest first. A session uses the versions of its current and its previous
 * refresh token. One that expired a moment ago counts: a refresh that came in time may not have committed yet.
 */
export const listSecrets = prepared('listSecrets')<{ customerId: string }, SecretRow>(sql`
  with looked_at as materialized (${newestSessions}),
  live as (
    select * from looked_at as ${s} where ${isLive(s, sql`${now} - ${AFTER_DEATH}`)}
  ),
  carried as (
    select version, count(*)::int as sessions from (
      select key_version as version from live
      union all select prev_key_version from live where prev_key_version <> key_version
    ) as each group by version
  )
  select ${bareList(signingKeys, 'use')}, k.version, ${bareList(signingKeys, 'state', 'alg')}, created_at as "createdAt",
    replaced_at as "replacedAt", retired_at as "retiredAt",
    case when (select count(*) from looked_at) <= ${sql.raw(String(MAX_COUNTED))} then coalesce(sessions, 0) end
      as "liveSessions"
  from ${signingKeys} as ${k}
  left join carried on ${k.use} = 'refresh' and carried.version = ${k.version}
  where ${k.customerId} = ${param('customerId')} and (${k.state} <> 'retired' or ${k.version} > (
    select max(newest.version) from ${signingKeys} as newest
    where newest.customer_id = ${k.customerId} and newest.use = ${k.use}) - ${sql.raw(String(MAX_RETIRED))})
  order by ${k.use}, ${k.version} desc`)
