import type { IssueResult } from '../../db/queries/issue.ts'
import type { SessionRow } from '../../db/queries/sessions.ts'
import {
  type AccessClaims,
  accessProblem,
  type ClaimsProblem,
  type RefreshClaims,
  refreshProblem,
} from '../jwt/claims.ts'
import { type CompactJws, macMatches, parseClaims, signUnder, split } from '../jwt/jwt.ts'
import type { SigningKey } from '../keys/customer-keys.ts'
import type { KeyCache } from '../keys/key-cache.ts'
import { isWaiting, type Waiting, whenReady } from '../lib/when-ready.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import { customerEpoch, type RevocationList, type RevokedBecause } from '../revocation/revocation-list.ts'

/** Why a token is refused. Never shown to who presents it: it goes to metrics, and to those who may know. */
export type RejectionReason =
  | 'token_malformed'
  | 'header_malformed'
  | 'key_unknown'
  | 'signature_wrong'
  | ClaimsProblem
  | RevokedBecause
  | 'customer_revoked'
  | 'customer_disabled'

export type VerifyResult<Claims> =
  | { claims: Claims; refusal?: undefined }
  | { refusal: RejectionReason; claims?: undefined }

export interface TokenVerifierOptions {
  changeFeed: ChangeFeed
  keys: KeyCache
  revocations: RevocationList
  issuer: string
}

export class TokenVerifier {
  readonly #options: TokenVerifierOptions

  constructor(options: TokenVerifierOptions) {
    this.#options = options
  }

  /** Throws Unavailable when the state can't be known. Awaits nothing when it is in memory. */
  async verify(text: string): Promise<VerifyResult<AccessClaims>> {
    return whenReady(() => this.verifyAccessSync(text))
  }

  /** All by one state, whatever has to be waited for first. */
  async verifyAll(texts: string[]): Promise<VerifyResult<AccessClaims>[]> {
    return whenReady(() => together(texts.map(text => this.verifyAccessSync(text))))
  }

  /** As `verifyAll`, a refresh token's own part of the truth. */
  async verifyAllRefresh(texts: string[]): Promise<VerifyResult<RefreshClaims>[]> {
    return whenReady(() => together(texts.map(text => this.#judgeRefresh(text))))
  }

  /** A refresh token's own part of the truth; its session's is in the database. Throws Unavailable. */
  async verifyRefresh(text: string): Promise<VerifyResult<RefreshClaims>> {
    return whenReady(() => this.#judgeRefresh(text))
  }

  /**
   * The verdict if it can be given now. No await lies between the freshness of the state and the verdict: what is
   * answered is true of one moment.
   */
  verifyAccessSync(text: string): VerifyResult<AccessClaims> | Waiting {
    const { changeFeed, keys, revocations, issuer } = this.#options
    const token = split(text)
    if (!token) return { refusal: 'token_malformed' }
    const key = keys.findByHeader(token.header, 'access')
    if (typeof key === 'string') return { refusal: key }
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    if ('load' in key) return { wait: () => keys.load(key.load, key.missing) }
    const signed = signedClaims(token, key)
    if (typeof signed === 'string') return { refusal: signed }
    const { customerId } = key.record
    const problem = accessProblem(signed, { customerId, issuer, now: changeFeed.now() })
    if (problem) return { refusal: problem }
    const claims = signed as unknown as AccessClaims
    const refusal = revocations.refuse(claims) ?? refusedByCustomer(claims, key)
    return refusal ? { refusal } : { claims }
  }

  #judgeRefresh(text: string): VerifyResult<RefreshClaims> | Waiting {
    const { changeFeed, keys } = this.#options
    const token = split(text)
    if (!token) return { refusal: 'token_malformed' }
    const key = keys.findByHeader(token.header, 'refresh')
    if (typeof key === 'string') return { refusal: key }
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    if ('load' in key) return { wait: () => keys.load(key.load, key.missing) }
    const signed = signedClaims(token, key)
    if (typeof signed === 'string') return { refusal: signed }
    const problem = refreshProblem(signed, { customerId: key.record.customerId, now: changeFeed.now() })
    return problem ? { refusal: problem } : { claims: signed as unknown as RefreshClaims }
  }

  /** An access token as its issuing statement decided it. It never outlives its session. */
  async issueAccess(token: NewAccessToken): Promise<{ text: string; claims: AccessClaims }> {
    const { issuer, keys } = this.#options
    const { customerId, tokenId, audience, subject, scope, ext, session, issuedAt } = token
    const key = await keys.signingKey(customerId, 'access', token.keyVersion)
    const claims: AccessClaims = {
      iss: issuer,
      sub: subject,
      aud: audience,
      client_id: customerId,
      exp: Math.min(issuedAt + token.ttl, session?.expiresAt ?? Number.POSITIVE_INFINITY),
      iat: issuedAt,
      jti: tokenId,
      ep: token.epochs,
      ...(scope === '' ? {} : { scope }),
      ...(ext === undefined ? {} : { ext }),
      ...(session === undefined ? {} : { sid: session.id, gen: session.gen }),
    }
    return { text: signUnder(key.header, key.alg, claims, key.secret), claims }
  }

  /** Derived wholly from the session's row: the same row gives the same string again. */
  async issueRefresh(customerId: string, session: RefreshableSession): Promise<string> {
    const key = await this.#options.keys.signingKey(customerId, 'refresh', session.keyVersion)
    const claims: RefreshClaims = {
      aud: 'refresh',
      client_id: customerId,
      sub: session.subject,
      sid: session.id,
      gen: session.gen,
      iat: session.rotatedAt,
      exp: session.expiresAt,
      jti: `${session.id}.${session.gen}`,
    }
    return signUnder(key.header, key.alg, claims, key.secret)
  }
}

function together<One extends object>(verdicts: (One | Waiting)[]): One[] | Waiting {
  const waiting = verdicts.filter(isWaiting)
  if (waiting.length === 0) return verdicts as One[]
  return { wait: () => Promise.all(waiting.map(({ wait }) => wait())) }
}

export interface NewAccessToken extends Pick<IssueResult, 'issuedAt'> {
  customerId: string
  tokenId: string
  subject: string
  audience: string | string[]
  scope: string
  ext: Record<string, unknown> | undefined
  /** Seconds. */
  ttl: number
  keyVersion: number
  epochs: string
  session: Pick<SessionRow, 'id' | 'gen' | 'expiresAt'> | undefined
}

export type RefreshableSession = Pick<
  SessionRow,
  'id' | 'subject' | 'gen' | 'keyVersion' | 'rotatedAt' | 'expiresAt'
>

function signedClaims(token: CompactJws, key: SigningKey): Record<string, unknown> | RejectionReason {
  if (!macMatches(token, key.alg, key.secret)) return 'signature_wrong'
  return parseClaims(token.claims) ?? 'claims_malformed'
}

function refusedByCustomer({ ep }: AccessClaims, { record }: SigningKey): RejectionReason | undefined {
  if (record.state !== 'active') return 'customer_disabled'
  return customerEpoch(ep) < record.epoch ? 'customer_revoked' : undefined
}
