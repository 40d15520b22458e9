import { timingSafeEqual } from 'node:crypto'
import { installationMac } from '../crypto/mac.ts'

/**
 * The issuer of a customer whose tokens have asymmetric signatures: `ISSUER/customers/<customer id>.<MAC>`. Verifiers find its
 * metadata and keys there without a credential, so the MAC keeps them from making the server look up customers that don't exist.
 */

const NAME = /^([a-z2-7]{16})\.[a-z2-7]{13}$/

/** The part of the path that names the customer. */
export const formatIssuerName = (installationKey: Uint8Array, customerId: string): string =>
  [customerId, installationMac(installationKey, 'issuer', customerId, 8)].join('.')

/** The customer id of a name that we made; undefined for any other text. Needs no lookup, and compares in constant time. */
export function parseIssuerName(installationKey: Uint8Array, name: string): string | undefined {
  const [, customerId] = NAME.exec(name) ?? []
  if (customerId === undefined) return undefined
  const ours = formatIssuerName(installationKey, customerId)
  return timingSafeEqual(Buffer.from(name), Buffer.from(ours)) ? customerId : undefined
}

/** `base` is the server's own issuer. */
export const customerIssuer = (base: string, installationKey: Uint8Array, customerId: string): string =>
  `${base}/customers/${formatIssuerName(installationKey, customerId)}`
