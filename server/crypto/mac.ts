import { createHmac } from 'node:crypto'
import { encodeBase32 } from './base32.ts'

/**
 * The uses of installation MACs. Each purpose has its own derived key, so that a MAC for one is never valid
 * for another.
 */
type Purpose = (typeof PURPOSES)[number]

const PURPOSES = [
  'kid',
  'issuer',
  'api key id',
  'service id',
  'retry',
  'cached record',
  'limit',
  'running database',
] as const

/** Derived keys by installation key. They are cached because every kid is checked, including made-up ones. */
const derived = new WeakMap<Uint8Array, Map<Purpose, Buffer>>()

/**
 * The first `bytes` of an HMAC-SHA256, as base32. Callers truncate it where a forged MAC gains only a query,
 * because the signature or the credential's digest is checked afterwards.
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
  const keys = new Map<Purpose, Buffer>(PURPOSES.map(purpose => [purpose, derive(purpose)]))
  derived.set(installationKey, keys)
  return keys
}
