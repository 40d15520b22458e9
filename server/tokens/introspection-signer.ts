import { hash } from 'node:crypto'
import { installationKeyPair } from '../crypto/installation-key-pair.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { KeyPair } from '../jwt/key-pair.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { Signatures } from './signatures.ts'

export interface IntrospectionSignerOptions {
  keyRing: Pick<KeyRing, 'installationKey'>
  issuer: string
  changeFeed: Pick<ChangeFeed, 'now'>
  signatures: Signatures
}

/** Signs answers of introspection (RFC 9701), so that their receiver can keep them as proof. */
export class IntrospectionSigner {
  readonly #options: IntrospectionSignerOptions
  readonly #pair: KeyPair
  readonly #kid: string
  /** The public key as a JWKS (RFC 7517). */
  readonly jwks: { body: string; etag: string }

  constructor(options: IntrospectionSignerOptions) {
    this.#options = options
    this.#pair = new KeyPair('EdDSA', installationKeyPair(options.keyRing.installationKey))
    this.#kid = hash('sha256', this.#pair.publicJwk, 'base64url')
    const body = `{"keys":[${this.#pair.publicJwkWith({ kid: this.#kid })}]}`
    this.jwks = { body, etag: `W/"${hash('sha256', body, 'base64url')}"` }
  }

  /** `audience`: the id of the client that sent the request. `answer`: the answer as JSON. */
  sign(audience: string, answer: string): Promise<string> {
    const { issuer, changeFeed, signatures } = this.#options
    return signatures.sign(
      audience,
      this.#pair,
      { alg: 'EdDSA', typ: 'token-introspection+jwt', kid: this.#kid },
      {
        iss: issuer,
        aud: audience,
        iat: Math.floor(changeFeed.now() / 1000),
        token_introspection: JSON.parse(answer),
      },
    )
  }
}
