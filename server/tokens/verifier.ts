import type { Issued } from '../../db/queries/issue.ts'
import type { SessionRow } from '../../db/queries/sessions.ts'
import {
  type AccessClaims,
  accessProblem,
  type ClaimsProblem,
  type RefreshClaims,
  refreshProblem,
} from '../jwt/claims.ts'
import { type Compact, macMatches, parseClaims, signUnder, split } from '../jwt/jwt.ts'
import type { SigningKey } from '../keys/customer-keys.ts'
import type { Keys } from '../keys/key-cache.ts'
import { isWaiting, settle, type Waiting } from '../lib/when-ready.ts'
import type { Bus } from '../revocation/change-feed.ts'
import { customerEpoch, type Revocations, type RevokedBecause } from '../revocation/revocation-list.ts'

/** Why a token is refused. Never shown to who presents it: it goes to metrics, and to those who may know. */
export type Refusal =
  | 'token_malformed'
  | 'header_malformed'
  | 'key_unknown'
  | 'signature_wrong'
  | ClaimsProblem
  | RevokedBecause
  | 'customer_revoked'
  | 'customer_disabled'

export type Verdict<Claims> =
  | { claims: Claims; refusal?: undefined }
  | { refusal: Refusal; claims?: undefined }

export interface TokensOptions {
  bus: Bus
  keys: Keys
  revocations: Revocations
  issuer: string
}

export class Tokens {
  readonly #options: TokensOptions

  constructor(options: TokensOptions) {
    this.#options = options
  }

  /** Throws Unavailable when the state can't be known. Awaits nothing when it is in memory. */
  async verify(text: string): Promise<Verdict<AccessClaims>> {
    return settle(() => this.judgeAccess(text))
  }

  /** All by one state, whatever has to be waited for first. */
  async verifyAll(texts: string[]): Promise<Verdict<AccessClaims>[]> {
    return settle(() => together(texts.map(text => this.judgeAccess(text))))
  }

  /** As `verifyAll`, a refresh token's own part of the truth. */
  async verifyAllRefresh(texts: string[]): Promise<Verdict<RefreshClaims>[]> {
    return settle(() => together(texts.map(text => this.#judgeRefresh(text))))
  }

  /** A refresh token's own part of the truth; its session's is in the database. Throws Unavailable. */
  async verifyRefresh(text: string): Promise<Verdict<RefreshClaims>> {
    return settle(() => this.#judgeRefresh(text))
  }

  /**
   * The verdict if it can be given now. No await lies between the freshness of the state and the verdict: what is
   * answered is true of one moment.
   */
  judgeAccess(text: string): Verdict<AccessClaims> | Waiting {
    const { bus, keys, revocations, issuer } = this.#options
    const token = split(text)
    if (!token) return { refusal: 'token_malformed' }
    const key = keys.find(token.header, 'access')
    if (typeof key === 'string') return { refusal: key }
    if (!bus.usable()) return { wait: () => bus.fresh() }
    if ('load' in key) return { wait: () => keys.record(key.load, key.missing) }
    const signed = signedClaims(token, key)
    if (typeof signed === 'string') return { refusal: signed }
    const { customerId } = key.record
    const problem = accessProblem(signed, { customerId, issuer, now: bus.now() })
    if (problem) return { refusal: problem }
    const claims = signed as unknown as AccessClaims
    const refusal = revocations.refuse(claims) ?? refusedByCustomer(claims, key)
    return refusal ? { refusal } : { claims }
  }

  #judgeRefresh(text: string): Verdict<RefreshClaims> | Waiting {
    const { bus, keys } = this.#options
    const token = split(text)
    if (!token) return { refusal: 'token_malformed' }
    const key = keys.find(token.header, 'refresh')
    if (typeof key === 'string') return { refusal: key }
    if (!bus.usable()) return { wait: () => bus.fresh() }
    if ('load' in key) return { wait: () => keys.record(key.load, key.missing) }
    const signed = signedClaims(token, key)
    if (typeof signed === 'string') return { refusal: signed }
    const problem = refreshProblem(signed, { customerId: key.record.customerId, now: bus.now() })
    return problem ? { refusal: problem } : { claims: signed as unknown as RefreshClaims }
  }

  /** An access token as its issuing statement decided it. It never outlives its session. */
  async issueAccess(token: NewAccessToken): Promise<{ text: string; claims: AccessClaims }> {
    const { issuer, keys } = this.#options
    const { customerId, tokenId, audience, subject, scope, ext, session, issuedAt } = token
    const key = await keys.signing(customerId, 'access', token.keyVersion)
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
    const key = await this.#options.keys.signing(customerId, 'refresh', session.keyVersion)
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

export interface NewAccessToken extends Pick<Issued, 'issuedAt'> {
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

function signedClaims(token: Compact, key: SigningKey): Record<string, unknown> | Refusal {
  if (!macMatches(token, key.alg, key.secret)) return 'signature_wrong'
  return parseClaims(token.claims) ?? 'claims_malformed'
}

function refusedByCustomer({ ep }: AccessClaims, { record }: SigningKey): Refusal | undefined {
  if (record.state !== 'active') return 'customer_disabled'
  return customerEpoch(ep) < record.epoch ? 'customer_revoked' : undefined
}
