import {
  type RetirementResult,
  retireAccessKeys,
  retireKey,
  retireRefreshKeys,
  type ScanCursor,
} from '../../db/queries/key-retirement.ts'
import { countLive, type Losses } from '../../db/queries/live-counts.ts'
import { turnOwner } from '../audit/actor.ts'
import { type AuditContext, MAINTENANCE } from '../audit/audit.ts'
import { randomId } from '../crypto/credentials.ts'
import type { KeyName } from '../jwt/kid.ts'
import { ApiError, ConflictError } from '../lib/errors.ts'
import type { Services } from '../services.ts'
import { takeKeyChange } from './change-limit.ts'

/** Retires older versions that no live token or session can use: during maintenance, or earlier on request. */

/** The most access keys that one pass of maintenance retires, and the most refresh keys that it checks. */
const BATCH_ROWS = 100
const WINDOW_ROWS = 1_000
/**
 * Requests that were in flight when a secret was replaced have ended after this time plus the grace period
 * (s).
 */
const IN_FLIGHT_SECONDS = 60

/** One version of one of a customer's secrets. */
type Version = Pick<KeyName, 'use' | 'version'>

/** A random starting position, so that a replica that restarts often still reaches every customer eventually. */
export const firstCursor = (): ScanCursor => ({ customerId: randomId(10), version: 0 })

/**
 * Retires the keys of all customers that have outlived their tokens and sessions, one batch per call. Returns the
 * position where the next call continues.
 */
export async function retireOutlivedKeys({ db, config }: Services, cursor: ScanCursor): Promise<ScanCursor> {
  await retireAccessKeys(db, { ...MAINTENANCE, limit: BATCH_ROWS })
  const at = { ...cursor, grace: config.refreshGrace, window: WINDOW_ROWS }
  const [looked] = await retireRefreshKeys(db, { ...MAINTENANCE, ...at })
  return looked?.next ?? cursor
}

/**
 * Retires a previous version, unless a live token or session may still use it. Returns when it was retired,
 * and the change feed's number if it was retired just now. Throws `not_found`, ConflictError,
 * RateLimitedError.
 */
export async function retireSigningKey(
  services: Services,
  customerId: string,
  which: Version,
  origin: AuditContext,
) {
  const { db, limits, turns, revoker, config } = services
  await takeKeyChange(limits, 'retire', customerId, origin)
  const asked = { ...origin, customerId, ...which, grace: config.refreshGrace }
  const [found] = await turns.run(turnOwner(origin.actor, customerId), () => retireKey(db, asked))
  if (!found)
    throw new ApiError(
      'not_found',
      `there is no ${which.use} secret with this version; list the secrets to see the versions`,
    )
  if (found.state === 'current')
    throw new ApiError('conflict', 'this version is current and signs tokens; rotate first')
  if (found.state === 'next')
    throw new ApiError(
      'conflict',
      'this version is the next one and will sign after the next rotation; retire an older one',
    )
  if (found.state === 'previous' && found.held) throw new ApiError('conflict', CLOCK_JUMPED)
  if (found.state === 'previous') throw await findBlocking(services, customerId, which, found, origin)
  if (found.seq !== null) revoker.invalidateCustomer(customerId, found.seq)
  return { retiredAt: found.retiredAt!, seq: found.seq ?? undefined }
}

async function findBlocking(
  { db, reads, config }: Services,
  customerId: string,
  { use }: Version,
  { sessions, tokens }: RetirementResult,
  { actor }: AuditContext,
): Promise<ConflictError> {
  const uses = { access: use === 'access', refresh: use === 'refresh' }
  const [wouldEnd] = await reads.run(turnOwner(actor, customerId), () =>
    countLive(db, { customerId, ...uses }),
  )
  const live = use === 'access' ? { live_tokens: tokens } : { live_sessions: sessions }
  const why = sessions + tokens === 0 ? tooSoon(config.refreshGrace) : REASON[use](sessions + tokens)
  return new ConflictError(`${why}, or rotate ${use} with now, which would end ${inWords(wouldEnd!)}`, {
    ...live,
    would_end: { ...wouldEnd! },
  })
}

const CLOCK_JUMPED =
  "the database's clock has jumped, so it is unknown which tokens and sessions still use this version; try again after an operator has confirmed the clock"

const tooSoon = (graceSeconds: number) =>
  `requests that began before this version was replaced may still need it; try again in ${IN_FLIGHT_SECONDS + graceSeconds} s`

const REASON = {
  access: (tokens: number) =>
    `at most ${tokens} live access tokens may use this version; wait until they have expired`,
  refresh: (sessions: number) =>
    `${sessions} live sessions still use this version; wait until each has been refreshed twice`,
}

const inWords = ({ sessions, tokens, partial }: Losses) =>
  partial
    ? `at least ${sessions} sessions and an unknown number of access tokens`
    : `${sessions} sessions and at most ${tokens} access tokens`
