import { alias, and, eq, sql } from '../drizzle.ts'
import { type Params, query, type RowOf } from '../query.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { sessions } from '../schema/sessions.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { EVERYONES_EPOCH } from './change-feed.ts'
import { isLive, seconds } from './sessions.ts'

/** Finds the state and the algorithm of the key that a token names. No row: there is no such key. */
export const explainKey = query(
  'explainKey',
  (db, asked: Params<{ customerId: string; use: 'access' | 'refresh'; version: number }>) =>
    db
      .select({ state: signingKeys.state, alg: signingKeys.alg })
      .from(signingKeys)
      .where(
        and(
          eq(signingKeys.customerId, asked.customerId),
          eq(signingKeys.use, asked.use),
          eq(signingKeys.version, asked.version),
        ),
      ),
)

export type ExplainedSession = RowOf<typeof explainSession>

const c = alias(customers, 'c')

// This is not written in the list of columns, because drizzle omits the table names of columns there.
const isDisabled = sql`exists (
  select from ${customers} as ${c} where ${c.id} = ${sessions.customerId} and ${c.state} = 'disabled')`

/** Finds the state of a session. No row: there is no such session, or it was deleted. */
export const explainSession = query(
  'explainSession',
  (db, { customerId, sessionId }: Params<{ customerId: string; sessionId: string }>) =>
    db
      .select({
        generation: sessions.gen,
        /** True if its customer is disabled. */
        disabled: sql<boolean>`${isDisabled}`,
        state: sql<'live' | 'ended' | 'expired'>`case when ${isLive(sessions)} then 'live'
          when ${sessions.revokedAt} is null and ${sessions.expiresAt} <= ${now} then 'expired' else 'ended' end`,
        /** True if it was revoked with everyone's sessions, and not individually before. */
        everyone: sql<boolean>`${sessions.revokedAt} is null and ${sessions.customerEpoch} < ${EVERYONES_EPOCH}`,
        /** NumericDates. */
        endedAt: sql<number | null>`${seconds(sessions.revokedAt)}`,
        expiresAt: seconds(sessions.expiresAt),
      })
      .from(sessions)
      .where(and(eq(sessions.customerId, customerId), eq(sessions.id, sessionId))),
)
