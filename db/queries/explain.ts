import { statement } from '../statement.ts'
import { EVERYONES_EPOCH } from './change-feed.ts'
import { live, seconds } from './sessions.ts'

export interface ExplainedKey {
  state: 'current' | 'previous' | 'retired'
}

/** What the database has of the key that a token names. No row: it has none. */
export const explainKey = statement('explainKey')<
  { customerId: string; use: 'access' | 'refresh'; version: number },
  ExplainedKey
>(
  `select state from assay.signing_keys where customer_id = :customerId and use = :use and version = :version::int`,
)

export interface ExplainedSession {
  generation: number
  /** Of its customer. */
  disabled: boolean
  state: 'live' | 'ended' | 'expired'
  /** Ended with everybody's, and not by itself before. */
  everyone: boolean
  /** NumericDates. */
  endedAt: number | null
  expiresAt: number
}

/** What the database has of a session. No row: it has none, or none any more. */
export const explainSession = statement('explainSession')<
  { customerId: string; sessionId: string },
  ExplainedSession
>(`
  select gen as generation, exists (
      select from assay.customers c where c.id = sessions.customer_id and c.state = 'disabled') as disabled,
    ${seconds('revoked_at')} as "endedAt", ${seconds('expires_at')} as "expiresAt",
    case when ${live('sessions')} then 'live' when revoked_at is null and expires_at <= assay.now() then 'expired'
      else 'ended' end as state,
    revoked_at is null and customer_epoch < ${EVERYONES_EPOCH} as everyone
  from assay.sessions where customer_id = :customerId and id = :sessionId`)
