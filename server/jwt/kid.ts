import { timingSafeEqual } from 'node:crypto'
import { installationMac } from '../crypto/mac.ts'

export type Use = 'access' | 'refresh'

/** Names one signing key: the `version`th (1 to 2^31 - 1) of a customer for one use. */
export interface KeyName {
  customerId: string
  use: Use
  version: number
}

const NAME = /^[a-z2-7]{16}\.[ar][1-9]\d{0,9}$/
const KID = /^([a-z2-7]{16})\.([ar])([1-9]\d{0,9})\.[a-z2-7]{13}$/
const MAX_VERSION = 2 ** 31 - 1

/** `<customer id>.<a|r><version>.<MAC>`. Throws on a name that `parseKid` couldn't return. */
export function formatKid(installationKey: Uint8Array, { customerId, use, version }: KeyName): string {
  // Fixed width, one letter, no leading zeros: no two names give the same text, so the text can be MACed.
  const name = `${customerId}.${use === 'access' ? 'a' : 'r'}${version}`
  if (!NAME.test(name) || version > MAX_VERSION) throw new Error('not the name of a signing key')
  // join() gives a flat string; a template would keep its parts in memory, and we hold 100,000s of kids.
  return [name, installationMac(installationKey, 'kid', name, 8)].join('.')
}

/**
 * Parses a kid that we made; undefined for any other text. Needs no lookup, and compares in constant time.
 */
export function parseKid(installationKey: Uint8Array, kid: string): KeyName | undefined {
  const [, customerId, letter, digits] = KID.exec(kid) ?? []
  if (customerId === undefined || Number(digits) > MAX_VERSION) return undefined
  const name: KeyName = { customerId, use: letter === 'a' ? 'access' : 'refresh', version: Number(digits) }
  // A kid has one spelling, so all of it is compared with ours; the pattern has made the lengths equal.
  return timingSafeEqual(Buffer.from(kid), Buffer.from(formatKid(installationKey, name))) ? name : undefined
}
