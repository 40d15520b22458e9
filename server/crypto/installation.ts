import { createHmac } from 'node:crypto'
import { encodeBase32 } from './base32.ts'

/**
 * What the installation key vouches for. Each purpose has a key of its own, so that the MAC of one never
 * serves as the other's.
 */
type Purpose = 'kid' | 'api key id' | 'cached record' | 'limit'

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
  if (installationKey.length !== 32) throw new Error('an installation key is 32 bytes')
  const key = createHmac('sha256', installationKey).update(`assay ${purpose}`).digest()
  return encodeBase32(createHmac('sha256', key).update(text).digest().subarray(0, bytes))
}
