import { isExpired, isNotYetValid, type RefreshClaims, toRefreshClaims } from '../jwt/claims.ts'
import { split } from '../jwt/jwt.ts'
import type { AsymmetricKey, SigningKey } from '../keys/customer-keys.ts'
import type { KeyCache } from '../keys/key-cache.ts'
import { isWaiting, type Waiting, whenReady } from '../lib/when-ready.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import { customerEpoch, type RevocationList, type RevokedBecause } from '../revocation/revocation-list.ts'
import {
  type AuthenticationFailure,
  type Authenticator,
  type AuthenticClaims,
  macClaims,
} from './authenticator.ts'
import { Proofs, type Signatures } from './signatures.ts'

/** Why a token is refused. Only for metrics and authorized callers; never shown to the presenter. */
export type RejectionReason =
  | 'token_malformed'
  | 'header_malformed'
  | 'key_unknown'
  | 'key_not_in_use'
  | AuthenticationFailure
  | 'expired'
  | 'not_yet_valid'
  | RevokedBecause
  | 'customer_revoked'
  | 'customer_disabled'

export type VerifyResult<Claims, Reason = RejectionReason> =
  | { claims: Claims; refusal?: undefined }
  | { refusal: Reason; claims?: undefined }

/** `keyVersion` is that of the key that signed it. */
export type RefreshVerdict =
  | { claims: RefreshClaims; keyVersion: number; refusal?: undefined }
  | { refusal: RejectionReason; claims?: undefined }

/** The reason why a request with several tokens is refused: two of them are valid, but of different subjects. */
export type RequestVerdict = VerifyResult<AuthenticClaims, RejectionReason | 'subjects_differ'>

export interface TokenVerifierOptions {
  authenticator: Authenticator
  changeFeed: ChangeFeed
  keys: KeyCache
  revocations: RevocationList
  signatures: Signatures
}

export class TokenVerifier {
  readonly #options: TokenVerifierOptions

  constructor(options: TokenVerifierOptions) {
    this.#options = options
  }

  /**
   * Verifies an access token; awaits nothing if the state is in memory. Throws Unavailable if it can't be
   * known.
   */
  async verify(text: string): Promise<VerifyResult<AuthenticClaims>> {
    const proofs = new Proofs()
    return whenReady(() => this.verifyAccessSync(text, proofs))
  }

  /** Like `verifyRequestSync`, after loading what any of the tokens needs. Throws Unavailable. */
  async verifyRequest(texts: readonly string[]): Promise<RequestVerdict> {
    const proofs = new Proofs()
    return whenReady(() => this.verifyRequestSync(texts, proofs))
  }

  /** Verifies all tokens against the same state, after loading what any of them needs. `proofs`: those of an earlier call. */
  async verifyAll(texts: string[], proofs = new Proofs()): Promise<VerifyResult<AuthenticClaims>[]> {
    return whenReady(() => together(texts.map(text => this.verifyAccessSync(text, proofs))))
  }

  /** Like `verifyAll`, for refresh tokens; their sessions are not checked. */
  async verifyAllRefresh(texts: string[]): Promise<RefreshVerdict[]> {
    return whenReady(() => together(texts.map(text => this.#verifyRefreshSync(text))))
  }

  /** Verifies a refresh token's signature, claims and expiry, but not its session. Throws Unavailable. */
  async verifyRefresh(text: string): Promise<RefreshVerdict> {
    return whenReady(() => this.#verifyRefreshSync(text))
  }

  /**
   * Returns the result if everything that it depends on is in memory: after each wait the key is looked up again. Nothing is
   * awaited between the check of the lease and the result, so the result is true of one moment.
   */
  verifyAccessSync(text: string, proofs?: Proofs): VerifyResult<AuthenticClaims> | Waiting {
    const { authenticator, changeFeed, keys } = this.#options
    const token = authenticator.read(text)
    if (!token) return { refusal: 'token_malformed' }
    const key = keys.findByHeader(token.header, 'access')
    if (typeof key === 'string') return { refusal: key }
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    if ('load' in key) return { wait: () => keys.load(key.load, key.missing) }
    if (key.pair && key.isNext) return this.#awaitNext(text, key, proofs)
    const claims = authenticator.authenticate(text, token, key, proofs)
    if (claims === 'unproven') return { wait: () => this.#prove(text, key, proofs) }
    if (typeof claims === 'string') return { refusal: claims }
    const refusal = this.#judge(claims, key)
    return refusal ? { refusal } : { claims }
  }

  /**
   * Like `verifyAccessSync`, for the tokens of one request, at least one. The first valid one counts. Valid tokens of
   * different subjects are refused, because the sender is then unknown.
   */
  verifyRequestSync(texts: readonly string[], proofs?: Proofs): RequestVerdict | Waiting {
    if (texts.length === 1) return this.verifyAccessSync(texts[0]!, proofs)
    const results = together(texts.map(text => this.verifyAccessSync(text, proofs)))
    return isWaiting(results) ? results : firstValid(results)
  }

  /**
   * Handles a token of a key that, as far as this replica knows, signs nothing yet. If the signature is valid,
   * another replica has just put the key into use, so the record is read again. The kid is public, so the record is
   * only read after a valid signature.
   */
  #awaitNext(
    text: string,
    key: AsymmetricKey,
    proofs: Proofs | undefined,
  ): Waiting | { refusal: RejectionReason } {
    const isValid = proofs?.of(text, key)
    if (isValid === undefined) return { wait: () => this.#prove(text, key, proofs) }
    if (!isValid) return { refusal: 'signature_wrong' }
    if (!proofs!.mayReload(key)) return { refusal: 'key_not_in_use' }
    return { wait: () => this.#options.keys.reload(key.record.customerId) }
  }

  /** Verifies the signature before the key is looked up again. */
  async #prove(text: string, key: SigningKey, proofs: Proofs | undefined) {
    if (key.pair) await proofs?.add(text, key, this.#options.signatures)
  }

  /** Why an authentic token is refused at this moment, or undefined. */
  #judge(claims: AuthenticClaims, { record }: SigningKey): RejectionReason | undefined {
    const { changeFeed, revocations } = this.#options
    const now = changeFeed.now()
    if (isExpired(claims, now)) return 'expired'
    if (isNotYetValid(claims, now)) return 'not_yet_valid'
    const revoked = revocations.refuse(claims)
    if (revoked) return revoked
    if (record.state !== 'active') return 'customer_disabled'
    return customerEpoch(claims.ep) < record.epoch ? 'customer_revoked' : undefined
  }

  #verifyRefreshSync(text: string): RefreshVerdict | Waiting {
    const { changeFeed, keys } = this.#options
    const token = split(text)
    if (!token) return { refusal: 'token_malformed' }
    const key = keys.findByHeader(token.header, 'refresh')
    if (typeof key === 'string') return { refusal: key }
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    if ('load' in key) return { wait: () => keys.load(key.load, key.missing) }
    if (key.pair) return { refusal: 'header_malformed' }
    const signed = macClaims(token, key)
    if (typeof signed === 'string') return { refusal: signed }
    const claims = toRefreshClaims(signed)
    if (!claims) return { refusal: 'claims_malformed' }
    if (claims.client_id !== key.record.customerId) return { refusal: 'wrong_customer' }
    // The session's row decides the rest. A database clock that was set back must not end sessions.
    return isExpired(claims, changeFeed.now()) ? { refusal: 'expired' } : { claims, keyVersion: key.version }
  }
}

function firstValid(results: VerifyResult<AuthenticClaims>[]): RequestVerdict {
  const [first, ...others] = results.flatMap(({ claims }) => claims ?? [])
  if (!first) return results[0]!
  const isSame = others.every(({ client_id, sub }) => client_id === first.client_id && sub === first.sub)
  return isSame ? { claims: first } : { refusal: 'subjects_differ' }
}

function together<One extends object>(verdicts: (One | Waiting)[]): One[] | Waiting {
  const waiting = verdicts.filter(isWaiting)
  if (waiting.length === 0) return verdicts as One[]
  return { wait: () => Promise.all(waiting.map(({ wait }) => wait())) }
}
