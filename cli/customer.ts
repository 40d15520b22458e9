import { api, type Json, pathSegment } from './client.ts'
import type { Output } from './command.ts'
import { formatSeconds } from './duration.ts'
import { CommandError, EXIT } from './errors.ts'
import { list } from './output.ts'

export const customerPath = (id: string, more = '') => `/admin/customers/${pathSegment(id)}${more}`

/** Finds a customer by its id or its whole email. Throws CommandError if it does not exist. */
export async function findCustomer(idOrEmail: string): Promise<Json> {
  if (!idOrEmail.includes('@')) return api.get(customerPath(idOrEmail))
  const email = idOrEmail.trim().toLowerCase()
  // The list is sorted by email, so an exact match comes before emails that only begin with it.
  const { customers } = await api.get('/admin/customers', { query: { email, limit: '1' } })
  if (customers[0]?.email !== email) throw new CommandError(EXIT.refused, NO_SUCH_EMAIL)
  return api.get(customerPath(customers[0].id))
}

const NO_SUCH_EMAIL = 'no customer has this email; search with `assay customers list --email`'

export const showCustomer = (customer: Json): Output => ({
  json: customer,
  text: list(describeCustomer(customer)),
})

/** A customer and the members of its policy, by display name. */
export const describeCustomer = (customer: Json) => ({
  id: customer.id,
  email: customer.email,
  verified: customer.email_verified_at,
  name: customer.name,
  state: customer.state,
  created: customer.created_at,
  ...describePolicy(customer),
  ...describeLocalVerification(customer),
})

const describeLocalVerification = ({ local_verification: local }: Json) => ({
  issuer: local?.issuer,
  'JWKS URL': local?.jwks_uri,
  'JWKS cached for': local && formatSeconds(local.jwks_max_age),
  note: local?.not_seen,
})

const describePolicy = ({ policy = {} }: Json) =>
  Object.fromEntries(
    Object.entries(policy).map(([member, value]) => [
      member.replaceAll('_', ' '),
      typeof value === 'number' ? formatSeconds(value) : Array.isArray(value) ? value.join(' ') : value,
    ]),
  )
