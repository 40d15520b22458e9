import type { CustomerRecord } from '../keys/customer-keys.ts'
import { ApiError } from '../lib/errors.ts'
import { type Waiting, whenReady } from '../lib/when-ready.ts'
import type { Services } from '../services.ts'
import type { AuthenticatedClient } from './authenticate.ts'

/** The customers that a client may act for. */

const CUSTOMER_ID = /^[a-z2-7]{16}$/

const CUSTOMER_MISSING = new ApiError(
  'invalid_request',
  'customer is missing; send the id of the customer that this request is for',
)
const OTHER_CUSTOMER = new ApiError(
  'invalid_request',
  "customer: the credential or token belongs to another customer; send that customer's id, or omit customer",
)
/** The error is the same for a customer that the service may not serve, so that the service can't learn which customers exist. */
const UNKNOWN_CUSTOMER = new ApiError('invalid_request', 'customer: no such customer; check the id')
const DISABLED = new ApiError('customer_disabled', 'this customer is disabled; ask the operator to enable it')

/** Whether the client may act for the customer. */
export const mayServe = (client: AuthenticatedClient, customerId: string): boolean =>
  client.kind === 'api_key'
    ? client.customerId === customerId
    : (client.customers?.includes(customerId) ?? true)

/** Throws `invalid_request` if the request names another customer than an API key's own. */
export function assertOwnCustomer(client: AuthenticatedClient | undefined, named: string | undefined) {
  if (client?.kind === 'api_key') assertSameCustomer(client.customerId, named)
}

/** Throws `invalid_request` if the request names another customer than the token's. */
export function assertSameCustomer(customerId: string, named: string | undefined) {
  if (named !== undefined && named !== customerId) throw OTHER_CUSTOMER
}

/**
 * Returns the customer that the request is for: an API key's own, or the one that a service names. Throws `invalid_request` or
 * `customer_disabled`.
 */
export async function servedCustomer(
  services: Pick<Services, 'changeFeed' | 'keys'>,
  client: AuthenticatedClient,
  named: string | undefined,
): Promise<string> {
  assertOwnCustomer(client, named)
  if (client.kind === 'api_key') return client.customerId
  if (named === undefined) throw CUSTOMER_MISSING
  if (!CUSTOMER_ID.test(named) || !mayServe(client, named)) throw UNKNOWN_CUSTOMER
  const { state } = await whenReady(() => findRecord(services, named))
  if (state === 'absent') throw UNKNOWN_CUSTOMER
  if (state === 'disabled') throw DISABLED
  return named
}

/** The record also has the customer's quota, which the issuer takes from memory. */
function findRecord(
  { changeFeed, keys }: Pick<Services, 'changeFeed' | 'keys'>,
  customerId: string,
): CustomerRecord | Waiting {
  if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
  const record = keys.get(customerId)
  // Loading a broken record throws, before anything is written for a token that could not be signed.
  return record === undefined || record.state === 'broken' ? { wait: () => keys.load(customerId) } : record
}
