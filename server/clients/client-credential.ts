import { timingSafeEqual } from 'node:crypto'
import { digest, parseCredential } from '../crypto/credentials.ts'

/** A secret, and the client_id that came with it unless it was a Bearer credential. */
export class ClientCredential {
  readonly clientId: string | undefined
  readonly secret: string
  /** The prefix and id of a credential that we generated; undefined for a secret that an operator chose. */
  readonly parsed: ReturnType<typeof parseCredential>
  #digest: Buffer | undefined

  constructor(clientId: string | undefined, secret: string) {
    this.clientId = clientId
    this.secret = secret
    this.parsed = parseCredential(secret)
  }

  /** Compares in constant time. Throws if `expected` isn't 32 bytes, which no column of ours holds. */
  matches(expected: Uint8Array): boolean {
    this.#digest ??= digest(this.secret)
    return timingSafeEqual(expected, this.#digest)
  }
}
