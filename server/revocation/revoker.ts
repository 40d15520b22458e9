import type { Database } from '../../db/client.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import {
  insertRevokedTokens,
  type Querier,
  raiseCustomerEpoch,
  raiseEveryonesEpoch,
  type TokenRevocation,
} from '../../db/queries/change-feed.ts'
import { raiseSubjectEpoch } from '../../db/queries/revoke-subject.ts'
import { endSessions, type SessionEnd } from '../../db/queries/sessions.ts'
import { isService } from '../audit/actor.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { Batcher, byNumber } from '../lib/batcher.ts'
import type { ConcurrencyLimit } from '../lib/concurrency-limit.ts'
import { ApiError, RateLimitedError } from '../lib/errors.ts'
import { addressKey, type RateLimiter } from '../lib/rate-limiter.ts'
import { SharedActs } from '../lib/shared-acts.ts'
import type { ChangeFeed } from './change-feed.ts'
import type { RevocationList } from './revocation-list.ts'

/**
 * A change of this replica's own is kept this long (seconds), unless a poll returns it with its exact expiry, which
 * is then used. Without such a poll the lease of at most 5 minutes ends earlier. A poll returns no expired change.
 */
const UNTIL_POLLED_SECONDS = 600

/** The most revoked subjects of one customer whose tokens may still live. Each is in every replica's memory. */
const MAX_LIVE_SUBJECTS = 10_000
/**
 * The same limit for all customers together; an operator's revocations are not refused. They take at most 53 MB of
 * each replica.
 */
const MAX_ALL_LIVE_SUBJECTS = 1_000_000
/** Revocations leave memory within a minute of their end (s). */
const SWEEP_SECONDS = 60

export interface RevokerOptions {
  db: Querier & Pick<Database, 'kind'>
  changeFeed: ChangeFeed
  revocations: Pick<RevocationList, 'subjects'>
  limits: RateLimiter
  /** The statements of one customer take turns here. */
  turns: ConcurrencyLimit
}

/**
 * Revokes tokens, sessions, subjects, customers or everything. Each revocation is one write, and this replica
 * applies it before it responds. Each method returns the change feed's number, for requests that wait for
 * every replica.
 */
export class Revoker {
  readonly #options: RevokerOptions
  readonly #ends: Batcher<Omit<SessionEnd, 'n'>, number | undefined>
  readonly #tokens: Batcher<TokenRevocation, number>
  /** Revocations of tokens under way. A second one of the same token would write a row and an event of its own. */
  readonly #tokensUnderWay = new Map<string, Promise<number>>()
  readonly #customers = new SharedActs<number>()

  constructor(options: RevokerOptions) {
    this.#options = options
    const { db } = options
    this.#ends = new Batcher(acts => endAll(db, acts), { database: db, owner: act => act.customer_id })
    this.#tokens = new Batcher(acts => revokeAll(db, acts), { database: db, owner: act => act.customer_id })
  }

  /**
   * Ends a session and its access tokens. Returns the change feed's number; undefined if there was none to
   * end.
   */
  async end(customerId: string, sessionId: string, origin: AuditContext): Promise<number | undefined> {
    const seq = await this.#ends.add({ ...actOf(customerId, origin), id: sessionId })
    if (seq !== undefined) this.applySessionEnded(customerId, sessionId, seq)
    return seq
  }

  /** Requests for one token share the act that is under way. After it the token is refused, so nothing is left to revoke. */
  revokeToken(claims: AccessClaims, origin: AuditContext): Promise<number> {
    const key = `${claims.client_id} ${claims.jti}`
    const underWay = this.#tokensUnderWay.get(key)
    if (underWay) return underWay
    const revoked = this.#revokeToken(claims, origin).finally(() => this.#tokensUnderWay.delete(key))
    this.#tokensUnderWay.set(key, revoked)
    return revoked
  }

  async #revokeToken(claims: AccessClaims, origin: AuditContext): Promise<number> {
    const { client_id: customerId, jti: tokenId, sub: subject, exp: expiresAt } = claims
    const act = { ...actOf(customerId, origin), token_id: tokenId, subject, expires_at: expiresAt }
    const seq = await this.#tokens.add(act)
    this.#options.changeFeed.apply([[seq, 'token', customerId, tokenId, 0, expiresAt + 60]])
    return seq
  }

  /**
   * Ends all tokens and sessions that a subject has so far. Returns the change feed's number; undefined if the customer has no
   * live token. `limited`: throws RateLimitedError if the customer, its address or all customers have revoked too many.
   */
  async revokeSubject(
    customerId: string,
    subject: string,
    origin: AuditContext,
    { limited }: { limited: boolean },
  ): Promise<number | undefined> {
    if (limited) await this.#takeSubject(customerId, origin)
    const mostLive = limited ? MAX_LIVE_SUBJECTS : undefined
    const { db, turns } = this.#options
    // An operator's revocation doesn't queue behind the customer's own.
    const owner = limited ? customerId : origin.actor
    const [raised] = await turns.run(owner, () =>
      raiseSubjectEpoch(db, { ...origin, customerId, subject, mostLive }),
    )
    if (raised?.refused) throw TOO_MANY_SUBJECTS
    if (!raised || raised.seq === null) return undefined
    const { seq, epoch } = raised
    this.#options.changeFeed.apply([[seq, 'subject', customerId, subject, epoch, this.#untilPolled()]])
    return seq
  }

  async #takeSubject(customerId: string, { actor, ip }: AuditContext) {
    const { limits, revocations } = this.#options
    // A service has one address for all customers.
    if (isService(actor)) await limits.take('subjectOfService', actor)
    else await limits.take('subjectOfAddress', addressKey(ip))
    await limits.take('subject', customerId)
    if (revocations.subjects >= MAX_ALL_LIVE_SUBJECTS) throw TOO_MANY_IN_ALL
  }

  /**
   * Ends all tokens and sessions that a customer has so far, including its own. Returns the change feed's number. Concurrent
   * requests of one actor share acts, because each statement waits for the customer's row and occupies a connection.
   */
  revokeCustomer(customerId: string, origin: AuditContext): Promise<number> {
    const key = `${customerId} ${origin.actor}`
    return this.#customers.run(key, () => this.#revokeCustomer(customerId, origin))
  }

  async #revokeCustomer(customerId: string, origin: AuditContext): Promise<number> {
    const [raised] = await raiseCustomerEpoch(this.#options.db, { ...origin, customerId })
    if (!raised) throw new ApiError('not_found', 'no such customer; check the id')
    this.invalidateCustomer(customerId, raised.seq)
    return raised.seq
  }

  /** Ends all tokens and sessions of all customers so far. Returns the change feed's number. */
  async revokeEveryone(origin: AuditContext): Promise<number> {
    const [raised] = await raiseEveryonesEpoch(this.#options.db, origin)
    const { seq, epoch } = raised!
    this.#options.changeFeed.apply([[seq, 'everyone', '', '', epoch, this.#untilPolled()]])
    return seq
  }

  /** Refuses a session on this replica from now on, because another act has ended it. */
  applySessionEnded(customerId: string, sessionId: string, seq: number) {
    this.#options.changeFeed.apply([[seq, 'session', customerId, sessionId, 0, this.#untilPolled()]])
  }

  /** Drops a customer's cached record on this replica, because another act has changed it. */
  invalidateCustomer(customerId: string, seq: number) {
    this.#options.changeFeed.apply([[seq, 'customer', customerId, '', 0, this.#untilPolled()]])
  }

  #untilPolled() {
    return Math.ceil(this.#options.changeFeed.now() / 1000) + UNTIL_POLLED_SECONDS
  }
}

const TOO_MANY_SUBJECTS = new RateLimitedError(
  SWEEP_SECONDS,
  `${MAX_LIVE_SUBJECTS} revoked subjects of this customer have tokens that have not expired yet; revoke the tokens of the ` +
    'whole customer, ask the operator, or try again later',
)
const TOO_MANY_IN_ALL = new RateLimitedError(
  SWEEP_SECONDS,
  'too many subjects are revoked on this server; revoke the tokens of the whole customer, ask the operator, or try again later',
)

const actOf = (customer_id: string, { actor, ip, userAgent: user_agent }: AuditContext) => ({
  customer_id,
  actor,
  ip,
  user_agent,
})

async function endAll(db: Querier, acts: Omit<SessionEnd, 'n'>[]): Promise<(number | undefined)[]> {
  const ended = await endSessions(db, { acts: JSON.stringify(acts.map((act, n) => ({ ...act, n }))) })
  return byNumber(ended, acts.length).map(row => row?.seq)
}

async function revokeAll(db: Querier, acts: TokenRevocation[]): Promise<number[]> {
  const [revoked] = await insertRevokedTokens(db, { acts: JSON.stringify(acts) })
  return acts.map(() => revoked!.seq)
}
