import type { Origin } from '../db/audit.ts'
import type { Database } from '../db/client.ts'
import {
  type Issued,
  insertSession,
  insertSessionOnce,
  insertToken,
  type NewSession,
  replayIssue,
} from '../db/issuing.ts'
import {
  insertRevokedTokens,
  type Querier,
  raiseCustomerEpoch,
  raiseSubjectEpoch,
  type TokenRevocation,
} from '../db/revocations.ts'
import {
  confirmSessions,
  endSessions,
  findRefreshable,
  listSessions,
  type Refreshed,
  refreshSession,
  type SessionEnd,
  type SessionQuery,
  type SessionRow,
} from '../db/sessions.ts'
import { Batch } from './batch.ts'
import type { Bus } from './bus.ts'
import type { AccessClaims, RefreshClaims } from './claims.ts'
import type { Config } from './config.ts'
import { digest, randomId } from './crypto/secret.ts'
import { OAuthError, Unavailable } from './errors.ts'
import { Grouped } from './grouped.ts'
import type { Log } from './log.ts'
import type { Tokens } from './tokens.ts'

/** What is asked for: a token about `subject`, for `audience`. */
export interface Grant extends Origin {
  customerId: string
  subject: string
  scope: string
  audience: string | string[]
  ext: Record<string, unknown> | undefined
  /** Seconds that each access token lives. */
  accessTtl: number
  apiKeyId: string | undefined
  /** The audit's event type. */
  type: string
}

/** A token response before it is written (RFC 6749 5.1). */
export interface Granted {
  accessToken: string
  claims: AccessClaims
  refreshToken?: string
}

export interface SessionsOptions {
  db: Database
  bus: Bus
  tokens: Tokens
  config: Pick<Config, 'refreshTokenTtl' | 'sessionMaxTtl' | 'refreshPolicy' | 'refreshGrace'>
  log: Log
}

/** Until the poll brings the exact one: no access token lives longer (seconds). */
const LONGEST_DEATH = 86_400 + 60

export class Sessions {
  readonly #options: SessionsOptions
  readonly #seen: Batch<{ customer_id: string; id: string; gen: number }>

  readonly #ends: Grouped<Omit<SessionEnd, 'n'>, number | undefined>
  readonly #revocations: Grouped<TokenRevocation, number>

  constructor(options: SessionsOptions) {
    this.#options = options
    const { db, log } = options
    this.#ends = new Grouped(acts => endAll(db, acts))
    this.#revocations = new Grouped(acts => revokeAll(db, acts))
    this.#seen = new Batch({
      write: seen => confirmSessions(db, { seen: JSON.stringify(seen) }),
      quiet: 0,
      log,
    })
  }

  /** An access token that belongs to no session. */
  async issue(grant: Grant): Promise<Granted> {
    const tokenId = randomId(15)
    const [issued] = await insertToken(this.#options.db, { ...grant, ...this.#lifetimes(), tokenId })
    if (!issued) throw notActive(grant)
    const { text, claims } = await this.#sign(grant, issued, tokenId, undefined)
    return { accessToken: text, claims }
  }

  async start(grant: Grant): Promise<Granted> {
    const { db } = this.#options
    const granted = await this.startWith(grant, async session => (await insertSession(db, session))[0])
    if (!granted) throw notActive(grant)
    return granted
  }

  /** A session that `insert` writes with whatever begins with it. Undefined: it wrote none. */
  async startWith(
    grant: Grant,
    insert: (session: NewSession) => Promise<Issued | undefined>,
  ): Promise<Granted | undefined> {
    const session = this.#newSession(grant)
    const issued = await insert(session)
    return issued && this.#started(grant, session, issued)
  }

  /**
   * `start`, once per Idempotency-Key and customer in ten minutes: a retry with the same request is answered like a lost
   * refresh. Throws `conflict` once the session has moved on, `invalid_request` for another request under the key.
   */
  async startOnce(grant: Grant, key: string, request: string): Promise<Granted> {
    const session = this.#newSession(grant)
    const digests = { keyDigest: digest(key), requestDigest: digest(request) }
    const [issued] = await insertSessionOnce(this.#options.db, { ...session, ...digests })
    if (!issued) throw notActive(grant)
    return issued.claimed ? this.#started(grant, session, issued) : this.#replayIssue(grant, digests)
  }

  async #replayIssue(grant: Grant, digests: { keyDigest: Buffer; requestDigest: Buffer }): Promise<Granted> {
    const tokenId = randomId(15)
    const [held] = await replayIssue(this.#options.db, { ...grant, ...digests, tokenId })
    // The request that claimed the key has not ended, or its customer is no longer active.
    if (!held) throw new Unavailable('issue: the session of an Idempotency-Key could not be found')
    if (held.outcome === 'other_request')
      throw new OAuthError(
        'invalid_request',
        'this Idempotency-Key was used with another request; use a new one',
      )
    if (held.outcome === 'moved_on')
      throw new OAuthError(
        'conflict',
        'the session of this Idempotency-Key is in use or has ended; use a new one',
      )
    return this.#grantedFrom(grant.customerId, held, tokenId, held.scope)
  }

  /** Throws `invalid_grant`, `invalid_scope` or Unavailable. `scope` narrows this access token only. */
  async refresh(claims: RefreshClaims, scope: string | undefined, origin: Origin): Promise<Granted> {
    const { db, config } = this.#options
    const tokenId = randomId(15)
    const [row] = await refreshSession(db, {
      ...origin,
      customerId: claims.client_id,
      sessionId: claims.sid,
      gen: claims.gen,
      scope,
      policy: config.refreshPolicy,
      grace: config.refreshGrace,
      refreshTtl: config.refreshTokenTtl,
      tokenId,
    })
    if (!row) throw refused('ended')
    if (row.seq !== null) this.#forget(claims.client_id, claims.sid, row.seq)
    if (row.outcome === 'rotate' || row.outcome === 'replay' || row.outcome === 'adopt')
      return this.#grantedFrom(claims.client_id, row, tokenId, scope ?? row.scope)
    throw refused(row.outcome)
  }

  /** Notes that the client has what its session's last rotation gave it, so that an earlier token is a thief's. */
  noteSeen(claims: AccessClaims) {
    if (claims.sid === undefined || claims.gen === undefined || claims.gen === 1) return
    const seen = { customer_id: claims.client_id, id: claims.sid, gen: claims.gen }
    this.#seen.note(`${claims.client_id} ${claims.sid}.${claims.gen}`, seen)
  }

  flush(): Promise<void> {
    return this.#seen.flush()
  }

  /** Answers the bus's number, or undefined when there was nothing to end. Its access tokens end with it. */
  async end(customerId: string, sessionId: string, origin: Origin): Promise<number | undefined> {
    const seq = await this.#ends.add({ ...actOf(customerId, origin), id: sessionId })
    if (seq !== undefined) this.#forget(customerId, sessionId, seq)
    return seq
  }

  async revokeToken(claims: AccessClaims, origin: Origin): Promise<number> {
    const { client_id: customerId, jti: tokenId, sub: subject, exp: expiresAt } = claims
    const act = { ...actOf(customerId, origin), token_id: tokenId, subject, expires_at: expiresAt }
    const seq = await this.#revocations.add(act)
    this.#options.bus.apply([[seq, 'token', customerId, tokenId, 0, expiresAt + 60]])
    return seq
  }

  /** Ends all of a subject's tokens and sessions that began before. Answers the bus's number. */
  async revokeSubject(customerId: string, subject: string, origin: Origin): Promise<number> {
    const { bus, db } = this.#options
    const [raised] = await raiseSubjectEpoch(db, { ...origin, customerId, subject })
    const { seq, epoch } = raised!
    bus.apply([[seq, 'subject', customerId, subject, epoch, Math.ceil(bus.now() / 1000) + LONGEST_DEATH]])
    return seq
  }

  /** Ends all of a customer's tokens and sessions that began before, its own too. Answers the bus's number. */
  async revokeCustomer(customerId: string, origin: Origin): Promise<number> {
    const { bus, db } = this.#options
    const [raised] = await raiseCustomerEpoch(db, { ...origin, customerId })
    if (!raised) throw new OAuthError('not_found', 'no such customer')
    bus.apply([[raised.seq, 'customer', customerId, '', 0, Math.ceil(bus.now() / 1000) + LONGEST_DEATH]])
    return raised.seq
  }

  /** The scope of each session whose token could be used to refresh now, by jti; all from one snapshot. */
  async refreshable(tokens: RefreshClaims[]): Promise<Map<string, string>> {
    if (tokens.length === 0) return new Map()
    const asked = tokens.map(({ client_id: customer_id, sid: id, gen }) => ({ customer_id, id, gen }))
    const found = await findRefreshable(this.#options.db, { asked: JSON.stringify(asked) })
    return new Map(found.map(({ id, gen, scope }) => [`${id}.${gen}`, scope]))
  }

  list(query: SessionQuery) {
    return listSessions(this.#options.db, query)
  }

  /** Refused here from now on, before the answer goes out. */
  #forget(customerId: string, sessionId: string, seq: number) {
    const { bus } = this.#options
    bus.apply([[seq, 'session', customerId, sessionId, 0, Math.ceil(bus.now() / 1000) + LONGEST_DEATH]])
  }

  forgetAll(customerId: string, sessionIds: string[], seq: number) {
    for (const id of sessionIds) this.#forget(customerId, id, seq)
  }

  #lifetimes() {
    const { refreshTokenTtl, sessionMaxTtl } = this.#options.config
    return { refreshTtl: refreshTokenTtl, sessionMaxTtl }
  }

  #newSession(grant: Grant): NewSession {
    const { audience, ext } = grant
    return {
      ...grant,
      ...this.#lifetimes(),
      sessionId: randomId(15),
      tokenId: randomId(15),
      audience: JSON.stringify(audience),
      ext: ext && JSON.stringify(ext),
    }
  }

  async #started(grant: Grant, { sessionId, tokenId }: NewSession, issued: Issued): Promise<Granted> {
    const { subject } = grant
    const { issuedAt: rotatedAt, expiresAt, refreshVersion: keyVersion } = issued
    const session = { id: sessionId, subject, gen: 1, keyVersion, rotatedAt, expiresAt }
    const { text, claims } = await this.#sign(grant, issued, tokenId, session)
    const refreshToken = await this.#options.tokens.issueRefresh(grant.customerId, session)
    return { accessToken: text, claims, refreshToken }
  }

  #sign(
    grant: Grant,
    issued: Issued,
    tokenId: string,
    session: Pick<SessionRow, 'id' | 'gen' | 'expiresAt'> | undefined,
  ) {
    return this.#options.tokens.issueAccess({
      ...grant,
      tokenId,
      session,
      ttl: grant.accessTtl,
      issuedAt: issued.issuedAt,
      keyVersion: issued.accessVersion,
      epochs: `${issued.customerEpoch}.${issued.subjectEpoch}`,
    })
  }

  /** Both tokens of a session, from its row as it is now. */
  async #grantedFrom(
    customerId: string,
    row: SessionRow & Pick<Refreshed, 'issuedAt' | 'accessVersion'>,
    tokenId: string,
    scope: string,
  ): Promise<Granted> {
    const { tokens } = this.#options
    const { text, claims } = await tokens.issueAccess({
      customerId,
      tokenId,
      scope,
      subject: row.subject,
      audience: JSON.parse(row.audience),
      ext: row.ext === null ? undefined : JSON.parse(row.ext),
      ttl: row.accessTtl,
      issuedAt: row.issuedAt,
      keyVersion: row.accessVersion,
      epochs: `${row.customerEpoch}.${row.subjectEpoch}`,
      session: row,
    })
    return { accessToken: text, claims, refreshToken: await tokens.issueRefresh(customerId, row) }
  }
}

const notActive = ({ apiKeyId }: Grant) =>
  apiKeyId === undefined
    ? new OAuthError('customer_disabled', 'this customer is disabled')
    : new OAuthError('invalid_client', 'this API key or its customer is not active any more')

const REFUSED = {
  ended: 'the session of this refresh token has ended; log in again',
  reuse:
    'this refresh token was used before; its session is ended, for it may have been stolen; log in again',
  disabled:
    'the customer of this refresh token is disabled; it can be used again once the customer is enabled',
}

const refused = (outcome: 'ended' | 'reuse' | 'disabled' | 'scope') =>
  outcome === 'scope'
    ? new OAuthError('invalid_scope', "ask for a subset of the session's scope, or leave scope out")
    : new OAuthError('invalid_grant', REFUSED[outcome])

const actOf = (customer_id: string, { actor, ip, userAgent: user_agent }: Origin) => ({
  customer_id,
  actor,
  ip,
  user_agent,
})

async function endAll(db: Querier, acts: Omit<SessionEnd, 'n'>[]): Promise<(number | undefined)[]> {
  const ended = await endSessions(db, { acts: JSON.stringify(acts.map((act, n) => ({ ...act, n }))) })
  const seqs = new Map(ended.map(({ n, seq }) => [n, seq]))
  return acts.map((_, n) => seqs.get(n))
}

async function revokeAll(db: Querier, acts: TokenRevocation[]): Promise<number[]> {
  const [revoked] = await insertRevokedTokens(db, { acts: JSON.stringify(acts) })
  return acts.map(() => revoked!.seq)
}
