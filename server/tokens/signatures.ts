import { split } from '../jwt/jwt.ts'
import type { KeyPair } from '../jwt/key-pair.ts'
import type { AsymmetricKey } from '../keys/customer-keys.ts'
import { ConcurrencyLimit } from '../lib/concurrency-limit.ts'
import { RateLimitedError, Unavailable } from '../lib/errors.ts'

/** The most concurrent verifications, and the most concurrent signatures. They run in libuv's four threads, which also resolve names. */
const ABREAST = 2
/**
 * The most waiting verifications of all customers, which take turns, and of one customer. A signature takes about 0.2
 * ms.
 */
const MAX_WAITING = 256
const MAX_WAITING_OF_ONE = 32

/**
 * Makes and verifies asymmetric signatures. Customers take turns in both, and neither waits for the other.
 *
 * Kids are public, so a stranger can cause any number of verifications: beyond a limit of waiting ones, a token is not verified.
 * Tokens that were verified before are not affected. Signatures have no such limit, because a statement has already committed
 * what they sign; the quotas of `/issue` and `/refresh` limit their number.
 */
export class Signatures {
  readonly #verifying = new ConcurrencyLimit(ABREAST, MAX_WAITING, MAX_WAITING_OF_ONE)
  readonly #signing = new ConcurrencyLimit(ABREAST, Number.POSITIVE_INFINITY)

  /** As `KeyPair.sign`. `owner`: the client that requested it. */
  sign(owner: string, pair: KeyPair, ...signed: Parameters<KeyPair['sign']>): Promise<string> {
    return this.#signing.run(owner, () => pair.sign(...signed))
  }

  /** Whether the key signed the token. Throws Unavailable if too many wait. */
  async verify(text: string, key: AsymmetricKey): Promise<boolean> {
    const token = split(text)!
    if (!key.pair.hasLength(token)) return false
    try {
      return await this.#verifying.run(key.record.customerId, () => key.pair.verifies(token))
    } catch (error) {
      if (error instanceof RateLimitedError) throw new Unavailable(BUSY, 'signatures', BUSY)
      throw error
    }
  }
}

const BUSY = 'too many new tokens of this customer are waiting to be verified; try again'

/**
 * The results of verifying the signatures of one request's tokens. They are verified one after another: a batch has a
 * hundred.
 */
export class Proofs {
  #last: Promise<unknown> = Promise.resolve()
  /** By token: the identity of the key that it was verified with, and whether the signature is that key's. */
  readonly #known = new Map<string, { identity: string; isValid: boolean }>()
  readonly #reloaded = new Set<string>()

  /** Undefined: not verified with this key. */
  of(text: string, { identity }: AsymmetricKey): boolean | undefined {
    const known = this.#known.get(text)
    return known?.identity === identity ? known.isValid : undefined
  }

  /** Verifies the signature. Throws Unavailable. */
  add(text: string, key: AsymmetricKey, signatures: Signatures): Promise<unknown> {
    this.#last = this.#last.then(async () => {
      const isValid = await signatures.verify(text, key)
      this.#known.set(text, { identity: key.identity, isValid })
    })
    return this.#last
  }

  /** Whether this is the first call for the key. */
  mayReload({ identity }: AsymmetricKey): boolean {
    return this.#reloaded.size < this.#reloaded.add(identity).size
  }
}
