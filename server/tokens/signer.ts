import type { IssueResult } from '../../db/queries/issue.ts'
import type { SessionRow } from '../../db/queries/sessions.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { signUnder } from '../jwt/jwt.ts'
import { headerOf } from '../keys/customer-keys.ts'
import type { KeyCache } from '../keys/key-cache.ts'
import type { Signatures } from './signatures.ts'

export interface TokenSignerOptions {
  keys: KeyCache
  signatures: Signatures
  issuer: string
}

/** Signs tokens with the keys and values that an issuing or refreshing statement decided. */
export class TokenSigner {
  readonly #options: TokenSignerOptions

  constructor(options: TokenSignerOptions) {
    this.#options = options
  }

  /** Signs an access token, which never outlives its session. */
  async signAccess(token: NewAccessToken): Promise<{ text: string; claims: AccessClaims }> {
    const { issuer, keys, signatures } = this.#options
    const { customerId, tokenId, audience, subject, scope, claims: own, session, issuedAt } = token
    const key = await keys.signingKey(customerId, 'access', token.keyVersion)
    const claims: AccessClaims = {
      iss: key.pair ? key.issuer : issuer,
      sub: subject,
      aud: audience,
      client_id: customerId,
      exp: Math.min(issuedAt + token.ttl, session?.expiresAt ?? Number.POSITIVE_INFINITY),
      iat: issuedAt,
      jti: tokenId,
      ep: token.epochs,
      ...(scope === '' ? {} : { scope }),
      ...(own === undefined ? {} : { claims: own }),
      ...(session === undefined ? {} : { sid: session.id, gen: session.gen }),
    }
    const text = key.pair
      ? await signatures.sign(customerId, key.pair, headerOf(key), claims)
      : signUnder(key.header, key.alg, claims, key.secret)
    return { text, claims }
  }

  /**
   * Signs a refresh token. It is derived only from values in the session's row that a refresh leaves unchanged if it
   * keeps the token, so that the token is always the same. Its exp is the session's absolute end: the idle end moves,
   * and the row has it.
   */
  async signRefresh(customerId: string, session: RefreshableSession): Promise<string> {
    const key = await this.#options.keys.signingKey(customerId, 'refresh', session.keyVersion)
    if (key.pair) throw new Error('refresh tokens are signed with HMACs only')
    const claims: RefreshClaims = {
      aud: 'refresh',
      client_id: customerId,
      sub: session.subject,
      sid: session.id,
      gen: session.gen,
      iat: session.rotatedAt,
      exp: session.endsAt,
      jti: `${session.id}.${session.gen}`,
    }
    return signUnder(key.header, key.alg, claims, key.secret)
  }
}

interface NewAccessToken extends Pick<IssueResult, 'issuedAt'> {
  customerId: string
  tokenId: string
  subject: string
  audience: string | string[]
  scope: string
  claims: Record<string, unknown> | undefined
  /** Seconds. */
  ttl: number
  keyVersion: number
  epochs: string
  session: Pick<SessionRow, 'id' | 'gen' | 'expiresAt'> | undefined
}

type RefreshableSession = Pick<SessionRow, 'id' | 'subject' | 'gen' | 'keyVersion' | 'rotatedAt' | 'endsAt'>
