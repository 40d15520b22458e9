import { createHmac } from 'node:crypto'
import { encodeBase32 } from './base32.ts'

/**
 * What the installation key vouches for. Each purpose has a key of its own, so that the MAC of one never
 * serves as the other's.
 */
type Purpose = 'kid' | 'api key id' | 'server id' | 'retry' | 'cached record' | 'limit'

const PURPOSES: Purpose[] = ['kid', 'api key id', 'server id', 'retry', 'cached record', 'limit']

/** By the installation key itself: a process has one, and a derived key is asked for with every made-up kid. */
const derived = new WeakMap<Uint8Array, Map<Purpose, Buffer>>()

/**
 * The first `bytes` of an HMAC-SHA256, as base32. Truncated where forging one wins nothing but a query: the signature
 * or the credential's digest is still to be checked.
 */
export function installationMac(
  installationKey: Uint8Array,
  purpose: Purpose,
  text: string,
  bytes: number,
): string {
  const mac = createHmac('sha256', keysOf(installationKey).get(purpose)!).update(text).digest()
  return encodeBase32(mac.subarray(0, bytes))
}

function keysOf(installationKey: Uint8Array): Map<Purpose, Buffer> {
  const known = derived.get(installationKey)
  if (known) return known
  if (installationKey.length !== 32) throw new Error('an installation key is 32 bytes')
  const derive = (purpose: Purpose) =>
    createHmac('sha256', installationKey).update(`assay ${purpose}`).digest()
  const keys = new Map(PURPOSES.map(purpose => [purpose, derive(purpose)]))
  derived.set(installationKey, keys)
  return keys
}
