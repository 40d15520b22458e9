import type { Database } from '../../db/client.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import {
  type Refresh,
  type RefreshResult,
  type RefreshRules,
  refreshesOf,
  refreshSession,
  refreshSessions,
} from '../../db/queries/refresh.ts'
import {
  confirmSession,
  confirmSessions,
  findRefreshable,
  listSessions,
  type Refreshable,
  type Seen,
  type SessionQuery,
} from '../../db/queries/sessions.ts'
import type { Config } from '../config/load.ts'
import { randomId } from '../crypto/credentials.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { Batcher, byNumber } from '../lib/batcher.ts'
import type { ConcurrencyLimit } from '../lib/concurrency-limit.ts'
import { ApiError } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import type { Metrics } from '../lib/metrics.ts'
import { WriteBuffer } from '../lib/write-buffer.ts'
import type { Revoker } from '../revocation/revoker.ts'
import type { IssuedUntil } from './issued-until.ts'
import type { Issuer, NarrowedGrant, TokenSet } from './issuer.ts'
import type { TokenQuota } from './quota.ts'

export type { ListedSession, Refreshable } from '../../db/queries/sessions.ts'

/** A refresh token with a valid signature. */
export interface PresentedToken {
  claims: RefreshClaims
  /** The version of the signing key that signed it. */
  keyVersion: number
  /** Whether it came with a credential of its customer. */
  authenticated: boolean
}

export interface SessionsOptions {
  db: Database
  /** The statements of one customer take turns here. */
  turns: ConcurrencyLimit
  issuedUntil: IssuedUntil
  quota: TokenQuota
  issuer: Issuer
  revoker: Revoker
  config: Pick<Config, 'refreshGrace'>
  metrics: Pick<Metrics, 'refreshed'>
  log: Log
}

const CONCURRENCY = 2

/**
 * Refreshes, confirms and lists sessions. The statement in db/queries/refresh.ts decides whether a refresh token is
 * rotated, replayed or reused. Sessions start in issuer.ts and end in revoker.ts.
 */
export class Sessions {
  readonly #options: SessionsOptions
  readonly #seen: WriteBuffer<Seen>
  readonly #refreshes: Batcher<Refresh, RefreshResult | undefined>
  /** Sessions with a refresh in a shared statement. */
  readonly #together = new Set<string>()

  constructor(options: SessionsOptions) {
    this.#options = options
    const { db, log } = options
    this.#refreshes = new Batcher(asked => this.#refreshAll(asked), {
      database: db,
      concurrency: CONCURRENCY,
      owner: ({ customerId }) => customerId,
    })
    this.#seen = new WriteBuffer({ write: seen => this.#confirmAll(seen), quiet: 0, log })
  }

  /**
   * Throws `invalid_grant`, `customer_disabled`, `invalid_scope`, `invalid_target`, RateLimitedError or Unavailable.
   * The scope and the audience narrow only this access token.
   */
  async refresh(
    { claims, keyVersion, authenticated }: PresentedToken,
    { scope, audience }: NarrowedGrant,
    origin: AuditContext,
  ): Promise<TokenSet> {
    const { issuer, metrics, quota, issuedUntil } = this.#options
    const { client_id: customerId, sid: sessionId, gen } = claims
    quota.takeRefresh(customerId, sessionId, gen)
    const tokenId = randomId(15)
    const successorSeen = this.#seen.isWaiting(keyOf(customerId, sessionId, gen + 1))
    const presented = { customerId, sessionId, gen, keyVersion, authenticated, successorSeen }
    const asked = { ...presented, scope, audience, tokenId, origin }
    const row = await issuedUntil.cover(customerId, () => this.#refreshOnce(asked))
    metrics.refreshed(row?.outcome ?? 'ended')
    if (!row) throw REFUSALS.ended
    if (row.outcome === 'target') throw OTHER_AUDIENCE
    if (row.outcome === 'scope') throw scope === undefined ? NO_SCOPE_LEFT : SCOPE_TOO_WIDE
    if (isRefused(row)) throw REFUSALS[row.outcome]
    return issuer.grantedFrom(customerId, row, tokenId, { scope, audience })
  }

  async #refreshOnce(asked: Refresh): Promise<RefreshResult | undefined> {
    const shared = await this.#refreshTogether(asked)
    return shared && shared.outcome !== 'reuse' ? shared : this.#refreshAlone(asked)
  }

  /**
   * Undefined if it must run alone: a statement can update a session's row only once, so a concurrent one
   * can't join.
   */
  async #refreshTogether(asked: Refresh): Promise<RefreshResult | undefined> {
    const session = `${asked.customerId} ${asked.sessionId}`
    if (this.#together.has(session)) return undefined
    this.#together.add(session)
    return this.#refreshes.add(asked).finally(() => this.#together.delete(session))
  }

  async #refreshAll(asked: Refresh[]) {
    const rows = await refreshSessions(this.#options.db, { acts: refreshesOf(asked), ...this.#rules() })
    return byNumber(rows, asked.length)
  }

  async #refreshAlone(asked: Refresh): Promise<RefreshResult | undefined> {
    const { db, turns, revoker } = this.#options
    const [row] = await turns.run(asked.customerId, () =>
      refreshSession(db, { acts: refreshesOf([asked]), ...this.#rules() }),
    )
    if (row && row.seq !== null) revoker.applySessionEnded(asked.customerId, asked.sessionId, row.seq)
    return row
  }

  #rules(): RefreshRules {
    const { issuer, config } = this.#options
    return { ...issuer.defaults, grace: config.refreshGrace }
  }

  /**
   * Records that the client received its last refresh response, so that any earlier refresh token counts as
   * stolen.
   */
  markConfirmed(claims: AccessClaims) {
    if (claims.sid === undefined || claims.gen === undefined || claims.gen === 1) return
    const seen = { customer_id: claims.client_id, id: claims.sid, gen: claims.gen }
    this.#seen.enqueue(keyOf(claims.client_id, claims.sid, claims.gen), seen)
  }

  async #confirmAll(seen: Seen[]) {
    const { db } = this.#options
    const locked = await confirmSessions(db, { seen: JSON.stringify(seen) })
    for (const one of locked) await confirmSession(db, { seen: JSON.stringify([one]) })
  }

  flush(): Promise<void> {
    return this.#seen.flush()
  }

  stop(): Promise<void> {
    return this.#seen.stop()
  }

  /** The session of each token of the customer that could be used to refresh now, by the token's jti. Reads a single snapshot. */
  async refreshable(customerId: string, tokens: RefreshClaims[]): Promise<Map<string, Refreshable>> {
    if (tokens.length === 0) return new Map()
    const { db, turns } = this.#options
    const asked = tokens.map(({ client_id: customer_id, sid: id, gen }) => ({ customer_id, id, gen }))
    const found = await turns.run(customerId, () => findRefreshable(db, { asked: JSON.stringify(asked) }))
    return new Map(found.map(session => [`${session.id}.${session.gen}`, session]))
  }

  list(query: SessionQuery) {
    return listSessions(this.#options.db, query)
  }
}

/** Names a generation of a session. */
const keyOf = (customerId: string, sessionId: string, gen: number) => `${customerId} ${sessionId}.${gen}`

const REFUSALS = {
  ended: new ApiError('invalid_grant', 'the session of this refresh token has ended; log in again'),
  reuse: new ApiError(
    'invalid_grant',
    'this refresh token was used before, so its session has been ended in case the token was stolen; log in again',
  ),
  // Not invalid_grant: clients delete such a token, and this one works again later.
  disabled: new ApiError(
    'customer_disabled',
    'the customer of this refresh token is disabled; keep the token, which can be used again once the customer is enabled',
  ),
}

const isRefused = (row: RefreshResult): row is RefreshResult & { outcome: keyof typeof REFUSALS } =>
  row.outcome in REFUSALS

const SCOPE_TOO_WIDE = new ApiError(
  'invalid_scope',
  "request a subset of the session's scope that the customer's policy allows, or omit scope",
)
const NO_SCOPE_LEFT = new ApiError(
  'invalid_scope',
  "the customer's policy allows none of the session's scopes; ask the operator to allow one, or start another session",
)
const OTHER_AUDIENCE = new ApiError(
  'invalid_target',
  'request an audience that the session began with, or omit resource and audience',
)
