import {
  CompactSign,
  type CryptoKey,
  compactVerify,
  errors,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
} from 'jose'
import { LRUCache } from 'lru-cache'
import type { AsymmetricAlgorithm } from './algorithms.ts'
import type { CompactJws, ProtectedHeader } from './jwt.ts'

/** Asymmetric keys as JWKs (RFC 7517), and their operations by jose. */

/** The length of a signature in characters. A signature has 64 bytes, or for RS256 as many bytes as the modulus. */
const SIGNATURE_LENGTH: Record<AsymmetricAlgorithm, number> = { EdDSA: 86, ES256: 86, RS256: 342 }

/** The members of a public key that a thumbprint includes (RFC 7638 3.2, RFC 8037 2); it has no others. */
const PUBLIC = ['crv', 'e', 'kty', 'n', 'x', 'y'] as const

/**
 * Pairs whose keys stay imported. An imported pair takes 6 to 20 kB, and importing a key again takes about as long as
 * a signature.
 */
const MAX_IMPORTED = 10_000

const encoder = new TextEncoder()

/** A new private key, as the UTF-8 of its JWK. RSA has 2048 bits, which is what every verifier accepts (RFC 7518 3.3). */
export async function generatePrivateKey(alg: AsymmetricAlgorithm): Promise<Uint8Array> {
  const { privateKey } = await generateKeyPair(alg, { extractable: true, modulusLength: 2048 })
  return encoder.encode(JSON.stringify(await exportJWK(privateKey)))
}

/** Returns the public half of a private or public key, as the UTF-8 of its JWK. */
export const publicHalf = (key: Uint8Array): Uint8Array => encoder.encode(publicText(parse(key)))

const parse = (key: Uint8Array): JWK => JSON.parse(Buffer.from(key).toString())

function publicText(jwk: JWK): string {
  const members = PUBLIC.flatMap(name => (jwk[name] === undefined ? [] : [[name, jwk[name]]]))
  return JSON.stringify(Object.fromEntries(members))
}

/** A customer's asymmetric key: the pair while it may sign, and only its public half after another key has replaced it. */
export class KeyPair {
  /** The pairs with imported keys; the most recently used ones stay imported. */
  static readonly #imported = new LRUCache<KeyPair, true>({
    maxSize: MAX_IMPORTED,
    sizeCalculation: () => 1,
    dispose: (_, pair) => pair.#forget(),
  })

  readonly alg: AsymmetricAlgorithm
  /** The public JWK as JSON. Equal texts are equal keys. */
  readonly publicJwk: string
  /** Undefined if only the public half is kept. */
  readonly #privateJwk: Uint8Array | undefined
  #verifying: Promise<CryptoKey> | undefined
  #signing: Promise<CryptoKey> | undefined
  #isReleased = false

  /** `key`: the UTF-8 of a JWK. */
  constructor(alg: AsymmetricAlgorithm, key: Uint8Array) {
    const jwk = parse(key)
    this.alg = alg
    this.publicJwk = publicText(jwk)
    this.#privateJwk = jwk.d === undefined ? undefined : key
  }

  get canSign(): boolean {
    return this.#privateJwk !== undefined
  }

  /** The public JWK as JSON, with the members that a JWKS adds. */
  publicJwkWith({ kid }: { kid: string }): string {
    return `${this.publicJwk.slice(0, -1)},${JSON.stringify({ kid, alg: this.alg, use: 'sig' }).slice(1)}`
  }

  /** Signs under exactly this header. The claims are not checked. */
  async sign(header: Record<keyof ProtectedHeader, string>, claims: object): Promise<string> {
    this.#noteUse()
    this.#signing ??= this.#load(parse(this.#privateJwk!))
    return new CompactSign(encoder.encode(JSON.stringify(claims)))
      .setProtectedHeader({ ...header })
      .sign(await this.#signing)
  }

  /** Whether the signature has the length of this key's signatures. */
  hasLength({ signature }: CompactJws): boolean {
    return signature.length === SIGNATURE_LENGTH[this.alg]
  }

  /** Whether this key made the signature. */
  async verifies({ signingInput, signature }: CompactJws): Promise<boolean> {
    this.#noteUse()
    this.#verifying ??= this.#load(JSON.parse(this.publicJwk))
    try {
      await compactVerify(`${signingInput}.${signature}`, await this.#verifying, { algorithms: [this.alg] })
      return true
    } catch (error) {
      if (error instanceof errors.JWSSignatureVerificationFailed) return false
      throw error
    }
  }

  get isImported(): boolean {
    return this.#signing !== undefined || this.#verifying !== undefined
  }

  /** Called when its record is no longer in use, so that no list keeps a private key in memory. */
  release() {
    this.#isReleased = true
    KeyPair.#imported.delete(this)
  }

  #noteUse() {
    if (!this.#isReleased && !KeyPair.#imported.get(this)) KeyPair.#imported.set(this, true)
  }

  #forget() {
    this.#signing = undefined
    this.#verifying = undefined
  }

  async #load(jwk: JWK): Promise<CryptoKey> {
    return (await importJWK(jwk, this.alg)) as CryptoKey
  }
}
