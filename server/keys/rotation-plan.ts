import {
  type KeyChange,
  type NewKey,
  PUBLISHED_AHEAD_SECONDS,
  type Rotatable,
} from '../../db/queries/key-rotation.ts'
import type { SealingKey } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { type AsymmetricAlgorithm, isAsymmetric } from '../jwt/algorithms.ts'
import { generatePrivateKey, publicHalf } from '../jwt/key-pair.ts'
import type { Use } from '../jwt/kid.ts'
import { newSecret, openDataKey, openSigningKey, sealSigningKey } from './customer-keys.ts'

/** Plans the keys that a rotation creates, as parameters of `rotateKeys` and `publishKey`. */

type Plan = Pick<KeyChange, 'signingAlg' | 'promoted' | 'inserted' | 'sealedPublic' | 'access' | 'refresh'>

/** Selects which of a customer's secrets to rotate. */
export type Uses = { access: boolean; refresh: boolean }

/** The algorithm in the customer's policy. */
export const wantedAlg = ({ signingAlg }: Pick<Rotatable, 'signingAlg'>) => signingAlg ?? 'HS512'

/** Encrypts the keys of one customer. */
class Sealer {
  readonly #keyRing: KeyRing
  readonly #customerId: string
  readonly #dataKey: SealingKey

  constructor(keyRing: KeyRing, customerId: string, from: Rotatable) {
    this.#keyRing = keyRing
    this.#customerId = customerId
    this.#dataKey = openDataKey(keyRing, customerId, from.sealedDataKey)
  }

  secret(use: Use, version: number): NewKey {
    return this.#seal({ use, version, state: 'current', alg: 'HS512' }, newSecret())
  }

  async pair(version: number, state: NewKey['state'], alg: AsymmetricAlgorithm): Promise<NewKey> {
    return this.#seal({ use: 'access', version, state, alg }, await generatePrivateKey(alg))
  }

  /** The current access key without its private half. */
  publicHalfOf({ accessVersion: version, accessAlg: alg, accessSealed }: Rotatable): Buffer {
    const name = { customerId: this.#customerId, use: 'access' as const, version, alg }
    const key = openSigningKey(this.#keyRing, this.#dataKey, name, accessSealed)
    return sealSigningKey(this.#keyRing, this.#dataKey, name, publicHalf(key))
  }

  #seal(key: Omit<NewKey, 'sealed' | 'signs_after'>, bytes: Uint8Array): NewKey {
    const name = { customerId: this.#customerId, use: key.use, version: key.version, alg: key.alg }
    const sealed = sealSigningKey(this.#keyRing, this.#dataKey, name, bytes).toString('base64')
    return { ...key, sealed, signs_after: undefined }
  }
}

/**
 * Replaces the current keys. An asymmetric one is followed by the key that was published before, and another key is
 * published.
 */
export async function planRotation(
  keyRing: KeyRing,
  customerId: string,
  from: Rotatable,
  { now, ...uses }: Uses & { now: boolean },
): Promise<Plan> {
  const sealer = new Sealer(keyRing, customerId, from)
  const access = uses.access ? await accessKeys(sealer, from) : { promoted: undefined, inserted: [] }
  const refresh = uses.refresh ? [sealer.secret('refresh', from.refreshVersion + 1)] : []
  const replacesPair = uses.access && isAsymmetric(from.accessAlg)
  return {
    ...uses,
    signingAlg: from.signingAlg,
    promoted: access.promoted,
    inserted: JSON.stringify([...access.inserted, ...refresh]),
    // A key that is retired at once verifies nothing any more, so an emergency needs no key that can be decrypted.
    sealedPublic: replacesPair ? (now ? NOTHING : sealer.publicHalfOf(from)) : undefined,
  }
}

const NOTHING = new Uint8Array(0)

async function accessKeys(sealer: Sealer, from: Rotatable) {
  const alg = wantedAlg(from)
  const version = from.lastAccessVersion + 1
  if (!isAsymmetric(alg)) return { promoted: undefined, inserted: [sealer.secret('access', version)] }
  if (from.next)
    return { promoted: from.next.version, inserted: [await nextKey(sealer, version, alg, from.next.alg)] }
  const first = await sealer.pair(version, 'current', alg)
  return { promoted: undefined, inserted: [first, await nextKey(sealer, version + 1, alg, alg)] }
}

/** `signing`: the algorithm of the key that signs until the change. */
async function nextKey(sealer: Sealer, version: number, alg: AsymmetricAlgorithm, signing: string) {
  const key = await sealer.pair(version, 'next', alg)
  return alg === signing ? key : { ...key, signs_after: PUBLISHED_AHEAD_SECONDS }
}

/** Replaces only the next key, by one with the policy's algorithm. */
export async function planPublication(
  keyRing: KeyRing,
  customerId: string,
  from: Rotatable,
  alg: AsymmetricAlgorithm,
): Promise<Plan> {
  const sealer = new Sealer(keyRing, customerId, from)
  const key = await nextKey(sealer, from.lastAccessVersion + 1, alg, from.accessAlg)
  return {
    signingAlg: from.signingAlg,
    access: false,
    refresh: false,
    promoted: undefined,
    inserted: JSON.stringify([key]),
    sealedPublic: undefined,
  }
}
