import { hash } from 'node:crypto'
import { customerIssuer } from '../jwt/customer-issuer.ts'
import { whenReady } from '../lib/when-ready.ts'
import type { Services } from '../services.ts'
import type { AsymmetricKey, CustomerRecord } from './customer-keys.ts'

/** The public halves of a customer's access keys for offline verifiers (RFC 7517). */

/** Lifetime of a cached JWKS (s). It is shorter than the time for which the next key is published before it signs. */
export const JWKS_MAX_AGE_SECONDS = 300

/** A document as it is sent. */
export interface Jwks {
  /** JSON. */
  body: string
  etag: string
  isEmpty: boolean
}

/** A record is never changed, only replaced by another one. */
const cached = new WeakMap<CustomerRecord, Jwks>()

/**
 * The keys that verify, the current one first, and the next one. A disabled customer has none. Undefined if there is
 * no such customer, or if all of its tokens have HMACs. Throws Unavailable.
 */
export async function publicKeysOf(services: Services, customerId: string): Promise<Jwks | undefined> {
  const record = await currentRecord(services, customerId)
  const pairs = record.keys.filter((key): key is AsymmetricKey => key.pair !== undefined)
  if (pairs.length === 0) return undefined
  const known = cached.get(record)
  if (known) return known
  const jwks = toJwks(record.state === 'active' ? pairs : [])
  cached.set(record, jwks)
  return jwks
}

function currentRecord({ changeFeed, keys }: Services, customerId: string): Promise<CustomerRecord> {
  return whenReady<CustomerRecord>(() => {
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    const record = keys.get(customerId)
    return record && record.state !== 'broken' ? record : { wait: () => keys.load(customerId) }
  })
}

function toJwks(pairs: AsymmetricKey[]): Jwks {
  const newest = pairs.toSorted((a, b) => Number(a.isNext) - Number(b.isNext) || b.version - a.version)
  const body = `{"keys":[${newest.map(key => key.pair.publicJwkWith(key)).join(',')}]}`
  return { body, etag: `W/"${hash('sha256', body, 'base64url')}"`, isEmpty: pairs.length === 0 }
}

/** Information for an operator who allows offline verification of a customer's tokens. */
export function localVerification({ config, keyRing }: Pick<Services, 'config' | 'keyRing'>, id: string) {
  const issuer = customerIssuer(config.issuer, keyRing.installationKey, id)
  return {
    issuer,
    jwks_uri: `${issuer}/jwks.json`,
    jwks_max_age: JWKS_MAX_AGE_SECONDS,
    not_seen: NOT_SEEN,
  }
}

const NOT_SEEN =
  'verifiers that do not ask Assay accept a token until its exp, even if it was revoked, its session ended or its customer was disabled; keep max_access_token_ttl short'
