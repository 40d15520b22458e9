import { type Json, pathSegment } from './client.ts'
import type { Output } from './command.ts'
import { formatSeconds } from './duration.ts'
import { list } from './output.ts'

export const customerPath = (id: string, more = '') => `/admin/customers/${pathSegment(id)}${more}`

export const showCustomer = (customer: Json): Output => ({
  json: customer,
  text: list(describeCustomer(customer)),
})

/** A customer and what its policy sets, by the names to show. */
export const describeCustomer = (customer: Json) => ({
  id: customer.id,
  email: customer.email,
  name: customer.name,
  state: customer.state,
  created: customer.created_at,
  ...describePolicy(customer),
})

const describePolicy = ({ policy = {} }: Json) =>
  Object.fromEntries(
    Object.entries(policy).map(([member, value]) => [
      member.replaceAll('_', ' '),
      typeof value === 'number' ? formatSeconds(value) : Array.isArray(value) ? value.join(' ') : value,
    ]),
  )
