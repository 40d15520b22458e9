import type { Database } from '../../db/client.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import {
  insertRevokedTokens,
  type Querier,
  raiseCustomerEpoch,
  raiseEveryonesEpoch,
  raiseSubjectEpoch,
  type TokenRevocation,
} from '../../db/queries/change-feed.ts'
import { endSessions, type SessionEnd } from '../../db/queries/sessions.ts'
import { type AccessClaims, MAX_TOKEN_TTL_SECONDS } from '../jwt/claims.ts'
import { Batcher, byNumber } from '../lib/batcher.ts'
import { ApiError } from '../lib/errors.ts'
import type { RateLimiter } from '../lib/rate-limiter.ts'
import { SharedActs } from '../lib/shared-acts.ts'
import type { ChangeFeed } from './change-feed.ts'

/** The longest life of an access token (seconds), used until a poll returns the exact end. */
const MAX_TOKEN_TTL_AND_MARGIN_SECONDS = MAX_TOKEN_TTL_SECONDS + 60

export interface RevokerOptions {
  db: Querier & Pick<Database, 'kind'>
  changeFeed: ChangeFeed
  limits: RateLimiter
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

  /** Ends all tokens and sessions that a subject has so far. Returns the change feed's number. */
  async revokeSubject(customerId: string, subject: string, origin: AuditContext): Promise<number> {
    await this.#options.limits.take('subject', customerId)
    const [raised] = await raiseSubjectEpoch(this.#options.db, { ...origin, customerId, subject })
    const { seq, epoch } = raised!
    this.#options.changeFeed.apply([[seq, 'subject', customerId, subject, epoch, this.#longest()]])
    return seq
  }

  /**
   * Ends all tokens and sessions that a customer has so far, including its own. Returns the change feed's
   * number. An actor's requests share acts: each statement waits for the customer's row, and would do so on a connection of
   * its own.
   */
  revokeCustomer(customerId: string, origin: AuditContext): Promise<number> {
    const key = `${customerId} ${origin.actor}`
    return this.#customers.run(key, () => this.#revokeCustomer(customerId, origin))
  }

  async #revokeCustomer(customerId: string, origin: AuditContext): Promise<number> {
    const [raised] = await raiseCustomerEpoch(this.#options.db, { ...origin, customerId })
    if (!raised) throw new ApiError('not_found', 'no such customer')
    this.invalidateCustomer(customerId, raised.seq)
    return raised.seq
  }

  /** Ends all tokens and sessions of all customers so far. Returns the change feed's number. */
  async revokeEveryone(origin: AuditContext): Promise<number> {
    const [raised] = await raiseEveryonesEpoch(this.#options.db, origin)
    const { seq, epoch } = raised!
    this.#options.changeFeed.apply([[seq, 'everyone', '', '', epoch, this.#longest()]])
    return seq
  }

  /** Refuses a session on this replica from now on, because another act has ended it. */
  applySessionEnded(customerId: string, sessionId: string, seq: number) {
    this.#options.changeFeed.apply([[seq, 'session', customerId, sessionId, 0, this.#longest()]])
  }

  /** Drops a customer's cached record on this replica, because another act has changed it. */
  invalidateCustomer(customerId: string, seq: number) {
    this.#options.changeFeed.apply([[seq, 'customer', customerId, '', 0, this.#longest()]])
  }

  #longest() {
    return Math.ceil(this.#options.changeFeed.now() / 1000) + MAX_TOKEN_TTL_AND_MARGIN_SECONDS
  }
}

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
