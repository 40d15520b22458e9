import type { Database } from '../../db/client.ts'
import type { AuditContext, AuditType } from '../../db/queries/audit.ts'
import {
  actsOf,
  type IssueResult,
  insertSessions,
  insertTokens,
  type NewSession,
  type NewToken,
} from '../../db/queries/issue.ts'
import { insertSessionOnce, replayIssue } from '../../db/queries/issue-once.ts'
import type { Defaults } from '../../db/queries/policy.ts'
import type { RefreshResult } from '../../db/queries/refresh.ts'
import type { SessionRow } from '../../db/queries/sessions.ts'
import { digest, randomId } from '../crypto/credentials.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { Batcher, byNumber } from '../lib/batcher.ts'
import type { ConcurrencyLimit } from '../lib/concurrency-limit.ts'
import { ApiError, Unavailable } from '../lib/errors.ts'
import type { IssuedUntil } from './issued-until.ts'
import { defaultsOf, refusedBy, type Settings } from './policy.ts'
import type { TokenQuota } from './quota.ts'
import type { TokenSigner } from './signer.ts'

/** A request for a token about `subject`, for `audience`. */
export interface IssueRequest extends AuditContext {
  customerId: string
  subject: string
  /** `exact`: the caller requested exactly this scope, so it must not be narrowed. */
  scope: string
  exact: boolean
  audience: string | string[]
  claims: Record<string, unknown> | undefined
  /** Lifetime of each access token in seconds; undefined for the default. */
  expiresIn: number | undefined
  apiKeyId: string | undefined
  type: AuditType
}

/** The part of its session's scope and audience that a refresh requests. Undefined means all of it. */
export interface NarrowedGrant {
  scope?: string | undefined
  audience?: string | string[] | undefined
}

/** A token response before it is written (RFC 6749 5.1). */
export interface TokenSet {
  accessToken: string
  claims: AccessClaims
  refreshToken?: string
}

export interface IssuerOptions {
  db: Database
  /** The statements of one customer take turns here. */
  turns: ConcurrencyLimit
  issuedUntil: IssuedUntil
  quota: TokenQuota
  signer: TokenSigner
  config: Settings
}

/** Concurrent statements: while one waits for its commit, the next can start. */
const CONCURRENCY = 2

/** Issues tokens and starts sessions. Sessions are refreshed in refresh.ts. */
export class Issuer {
  readonly #options: IssuerOptions
  /** Parameters of every issuing statement. */
  readonly defaults: Defaults
  readonly #tokens: Batcher<NewToken, IssueResult | undefined>
  readonly #sessions: Batcher<NewSession, IssueResult | undefined>

  constructor(options: IssuerOptions) {
    this.#options = options
    this.defaults = defaultsOf(options.config)
    const { db } = options
    const grouped = <Asked extends NewToken>(insert: typeof insertTokens) =>
      new Batcher<Asked, IssueResult | undefined>(
        async asked => byNumber(await insert(db, { acts: actsOf(asked), ...this.defaults }), asked.length),
        { database: db, concurrency: CONCURRENCY, owner: ({ customerId }) => customerId },
      )
    this.#tokens = grouped(insertTokens)
    this.#sessions = grouped(insertSessions)
  }

  /** Issues an access token without a session. Throws RateLimitedError, as the methods that start a session do. */
  async issue(grant: IssueRequest): Promise<TokenSet> {
    const { quota, issuedUntil } = this.#options
    quota.takeIssue(grant.customerId)
    const tokenId = randomId(15)
    // The audience and the custom claims are stored only with a session.
    const { claims: _, audience: __, ...asked } = grant
    const act = { ...asked, tokenId }
    const issued = await issuedUntil.cover(grant.customerId, () => this.#tokens.add(act))
    if (!issued) throw notActive(grant)
    if (issued.refused) throw refusedBy(issued)
    const { text, claims } = await this.#sign(grant, issued, tokenId, undefined)
    return { accessToken: text, claims }
  }

  async start(grant: IssueRequest): Promise<TokenSet> {
    this.#options.quota.takeIssue(grant.customerId)
    const granted = await this.startWith(grant, session => this.#sessions.add(session))
    if (!granted) throw notActive(grant)
    return granted
  }

  /**
   * Starts a session that `insert` writes, together with other rows if needed. Undefined if it wrote no
   * session.
   */
  async startWith(
    grant: IssueRequest,
    insert: (session: NewSession) => Promise<IssueResult | undefined>,
  ): Promise<TokenSet | undefined> {
    const session = this.#newSession(grant)
    const issued = await this.#options.issuedUntil.cover(grant.customerId, () => insert(session))
    if (issued?.refused) throw refusedBy(issued)
    return issued && this.#started(grant, session, issued)
  }

  /**
   * Like `start`, but only once per Idempotency-Key and customer within ten minutes: a retry of the same
   * request gets its tokens again, as after a lost refresh response. Throws `conflict` if the session has
   * been used or has ended, and `invalid_request` if the key was used with another request.
   */
  async startOnce(grant: IssueRequest, key: string, request: string): Promise<TokenSet> {
    this.#options.quota.takeIssue(grant.customerId)
    const session = this.#newSession(grant)
    const digests = { keyDigest: digest(key), requestDigest: digest(request) }
    const act = { acts: actsOf([session]), ...this.defaults }
    const issued = await this.#inTurn(grant, db => insertSessionOnce(db, { ...act, ...digests }))
    if (!issued) throw notActive(grant)
    if (issued.refused) throw refusedBy(issued)
    return issued.claimed ? this.#started(grant, session, issued) : this.#replayIssue(grant, digests)
  }

  /** Runs a statement that serves one act of one customer. */
  #inTurn<Row extends { raiseDue: boolean }>(
    { customerId }: IssueRequest,
    issue: (db: Database) => Promise<Row[]>,
  ) {
    const { db, turns, issuedUntil } = this.#options
    return issuedUntil.cover(customerId, async () => (await turns.run(customerId, () => issue(db)))[0])
  }

  async #replayIssue(
    grant: IssueRequest,
    digests: { keyDigest: Buffer; requestDigest: Buffer },
  ): Promise<TokenSet> {
    const tokenId = randomId(15)
    const act = { ...grant, ...digests, ...this.defaults, tokenId }
    const held = await this.#inTurn(grant, db => replayIssue(db, act))
    // The request that claimed the key is still running, or its customer is no longer active.
    if (!held)
      throw new Unavailable('issue: the session of an Idempotency-Key could not be found', 'changing')
    if (held.outcome === 'other_request')
      throw new ApiError(
        'invalid_request',
        'this Idempotency-Key was used with another request; use a new key',
      )
    if (held.outcome === 'moved_on')
      throw new ApiError(
        'conflict',
        'the session of this Idempotency-Key has been refreshed or has ended; use a new key',
      )
    return this.grantedFrom(grant.customerId, held, tokenId, {})
  }

  #newSession(grant: IssueRequest): NewSession {
    const { audience, claims } = grant
    return {
      ...grant,
      sessionId: randomId(15),
      tokenId: randomId(15),
      audience: JSON.stringify(audience),
      claims: claims && JSON.stringify(claims),
    }
  }

  async #started(
    grant: IssueRequest,
    { sessionId, tokenId }: NewSession,
    issued: IssueResult,
  ): Promise<TokenSet> {
    const { subject } = grant
    const { issuedAt: rotatedAt, expiresAt, endsAt, refreshVersion: keyVersion } = issued
    const session = { id: sessionId, subject, gen: 1, keyVersion, rotatedAt, expiresAt, endsAt }
    const { text, claims } = await this.#sign(grant, issued, tokenId, session)
    const refreshToken = await this.#options.signer.signRefresh(grant.customerId, session)
    return { accessToken: text, claims, refreshToken }
  }

  #sign(
    grant: IssueRequest,
    issued: IssueResult,
    tokenId: string,
    session: Pick<SessionRow, 'id' | 'gen' | 'expiresAt'> | undefined,
  ) {
    return this.#options.signer.signAccess({
      ...grant,
      tokenId,
      session,
      scope: issued.scope,
      ttl: issued.accessTtl,
      issuedAt: issued.issuedAt,
      keyVersion: issued.accessVersion,
      epochs: `${issued.customerEpoch}.${issued.subjectEpoch}`,
    })
  }

  /** Signs both tokens of a session from its current row. Members of `narrowed` replace the session's. */
  async grantedFrom(
    customerId: string,
    row: SessionRow & Pick<RefreshResult, 'issuedAt' | 'accessVersion'>,
    tokenId: string,
    { scope = row.scope, audience = JSON.parse(row.audience) }: NarrowedGrant,
  ): Promise<TokenSet> {
    const { signer } = this.#options
    const { text, claims } = await signer.signAccess({
      customerId,
      tokenId,
      scope,
      subject: row.subject,
      audience,
      claims: row.claims === null ? undefined : JSON.parse(row.claims),
      ttl: row.accessTtl,
      issuedAt: row.issuedAt,
      keyVersion: row.accessVersion,
      epochs: `${row.customerEpoch}.${row.subjectEpoch}`,
      session: row,
    })
    return { accessToken: text, claims, refreshToken: await signer.signRefresh(customerId, row) }
  }
}

const notActive = ({ apiKeyId }: IssueRequest) =>
  apiKeyId === undefined
    ? new ApiError('customer_disabled', 'this customer is disabled; ask the operator to enable it')
    : new ApiError(
        'invalid_client',
        'this API key has been deleted or has expired, or its customer is disabled; ask the operator',
      )
