import { z } from 'zod'
import type { AdminCustomer, Change, ErasureReport } from '../../customers/admin.ts'
import type { Keeper } from '../../http/auth.ts'
import { readJson } from '../../http/body.ts'
import type { Call, Reply, Routes } from '../../http/call.ts'
import { waitForAll, waitOf } from '../../http/consistency.ts'
import { auditContextOf, type Services } from '../../http/env.ts'
import { decodeCursor, decodeTextCursor, pageOf, pageSize, textPageOf } from '../../http/pagination.ts'
import { idempotencyKey, present, readQuery } from '../../http/params.ts'
import { json, NO_STORE, noContent } from '../../http/respond.ts'
import { name } from '../../http/schemas.ts'
import { ApiError } from '../../lib/errors.ts'
import type { Policy } from '../../tokens/policy.ts'
import { email, password } from '../account.ts'
import { operator } from './operator.ts'

type Needs = Pick<Services, 'changeFeed' | 'provisioning' | 'customerAdmin' | 'operators' | 'proxies'>

export const CUSTOMER = '/admin/customers/:customer'

/** Customers, as operators see to them. */
export const customerRoutes = (services: Needs): Routes => ({
  'GET /admin/customers': listCustomers(services),
  'POST /admin/customers': createCustomer(services),
  [`GET ${CUSTOMER}`]: showCustomer(services),
  [`PATCH ${CUSTOMER}`]: changeCustomer(services),
  [`POST ${CUSTOMER}/disable`]: turn(services, 'disable'),
  [`POST ${CUSTOMER}/enable`]: turn(services, 'enable'),
  [`PUT ${CUSTOMER}/password`]: setPassword(services),
  [`DELETE ${CUSTOMER}`]: eraseCustomer(services),
})

/** Ours have only these characters; what has others is not there, and never asked for. */
export function customerOf(call: Call): string {
  const { customer = '' } = call.params
  if (!/^[a-z2-7]{16}$/.test(customer)) throw new ApiError('not_found', 'no such customer')
  return customer
}

/** An operator sees to a customer's things. Throws `not_found` where there is no such customer. */
export const operatorKeeper =
  (services: Pick<Services, 'customerAdmin' | 'operators'>): Keeper =>
  async call => {
    const actor = operator(call, services)
    const { id: customerId } = await services.customerAdmin.find(customerOf(call))
    return { customerId, actor }
  }

function listCustomers(services: Needs) {
  return async function listCustomers(call: Call) {
    operator(call, services)
    const query = readQuery(call, ['email', 'name', 'cursor', 'limit'])
    if (query.email !== undefined && query.name !== undefined)
      throw new ApiError('invalid_request', 'email or name: what one of them begins with, not both')
    const by = query.email !== undefined ? 'email' : query.name !== undefined ? 'name' : undefined
    const { page, nextCursor } = by ? await searched(services, by, query) : await listed(services, query)
    return json(present({ customers: page.map(toCustomer), next_cursor: nextCursor }))
  }
}

type Query = { email?: string; name?: string; cursor?: string; limit?: string }

async function listed({ customerAdmin }: Needs, { cursor, limit }: Query) {
  const size = pageSize(limit)
  const before = decodeCursor(cursor)
  const rows = await customerAdmin.list({ beforeAt: before?.at, beforeId: before?.id, limit: size + 1 })
  return pageOf(rows, size, customer => customer.createdAt)
}

async function searched({ customerAdmin }: Needs, by: 'email' | 'name', query: Query) {
  const size = pageSize(query.limit)
  const prefix = query[by]!.trim()
  const after = decodeTextCursor(query.cursor)
  const rows = await customerAdmin.search(by, {
    prefix,
    afterText: after?.text,
    afterId: after?.id,
    limit: size + 1,
  })
  return textPageOf(rows, size)
}

const createRequest = z.strictObject({ email, name: name.optional(), password: password.optional() })

function createCustomer(services: Needs) {
  return async function createCustomer(call: Call) {
    const actor = operator(call, services)
    const { email, name, password } = await readJson(call, createRequest)
    const origin = auditContextOf(call, services, actor)
    const account = { email, name, password }
    const { customer, apiKey } = await services.provisioning.create(account, origin, idempotencyKey(call))
    return withTag(customer, { customer: toCustomer(customer), api_key: apiKey }, 201)
  }
}

function showCustomer(services: Needs) {
  return async function showCustomer(call: Call) {
    operator(call, services)
    const customer = await services.customerAdmin.find(customerOf(call))
    return withTag(customer)
  }
}

const changeRequest = z
  .strictObject({ email: email.optional(), name: name.optional() })
  .refine(change => Object.keys(change).length > 0, 'nothing to change; send email or name')

function changeCustomer(services: Needs) {
  return async function changeCustomer(call: Call) {
    const actor = operator(call, services)
    const change = changeOf(call)
    const { email, name } = await readJson(call, changeRequest)
    const customer = await services.customerAdmin.change(
      change,
      { email, name },
      auditContextOf(call, services, actor),
    )
    return withTag(customer)
  }
}

function turn(services: Needs, act: 'disable' | 'enable') {
  return async function turn(call: Call) {
    const actor = operator(call, services)
    const wait = waitOf(call)
    const { customer, seq } = await services.customerAdmin[act](
      changeOf(call),
      auditContextOf(call, services, actor),
    )
    // Where nothing was left to do too: what an earlier try did may not be known everywhere yet.
    await waitForAll(services, wait, seq)
    return withTag(customer)
  }
}

const passwordRequest = z.strictObject({ password })

function setPassword(services: Needs) {
  return async function setPassword(call: Call) {
    const actor = operator(call, services)
    const wait = waitOf(call)
    const customerId = customerOf(call)
    const { password } = await readJson(call, passwordRequest)
    const seq = await services.customerAdmin.setPassword(
      customerId,
      password,
      auditContextOf(call, services, actor),
    )
    await waitForAll(services, wait, seq)
    return noContent()
  }
}

/** What was erased is gone: whoever erases says by the customer's id that it means this one. */
function eraseCustomer(services: Needs) {
  return async function eraseCustomer(call: Call) {
    const actor = operator(call, services)
    const wait = waitOf(call)
    const customerId = customerOf(call)
    const receipt = await services.customerAdmin.erase(customerId, auditContextOf(call, services, actor))
    await waitForAll(services, wait, receipt.seq)
    return json(toReceipt(customerId, receipt))
  }
}

const ENTITY_TAG = /^"(\d{1,9})"$/

/** If-Match (RFC 9110 13.1.1): the tag that a customer was read with, or `*` for any. */
export function changeOf(call: Call): Change {
  const header = call.header('if-match')?.trim()
  const customerId = customerOf(call)
  if (header === undefined || header === '*') return { customerId, revision: undefined }
  const [, revision] = ENTITY_TAG.exec(header) ?? []
  if (revision === undefined)
    throw new ApiError('invalid_request', 'If-Match: one ETag as it was answered, with its quotes, or *')
  return { customerId, revision: Number(revision) }
}

export const withTag = (customer: AdminCustomer, body: object = toCustomer(customer), status = 200): Reply =>
  json(body, status, { ...NO_STORE, ETag: `"${customer.revision}"` })

const toCustomer = ({ id, email, name, state, createdAt, ...policy }: AdminCustomer) =>
  present({ id, email, name, state, created_at: createdAt, policy: toPolicy(policy) })

/** Undefined: it has none, and all is as the server's settings have it. */
function toPolicy(policy: Policy) {
  const own = present({
    scopes: policy.scopes?.split(' '),
    access_token_ttl: policy.accessTokenTtl,
    max_access_token_ttl: policy.maxAccessTokenTtl,
    refresh_token_ttl: policy.refreshTokenTtl,
    session_max_ttl: policy.sessionMaxTtl,
    refresh_policy: policy.refreshPolicy,
    key_max_age: policy.keyMaxAge,
  })
  return Object.keys(own).length > 0 ? own : undefined
}

const toReceipt = (id: string, { erasedAt, sessions, apiKeys, secrets, auditEvents }: ErasureReport) => ({
  id,
  erased_at: erasedAt,
  sessions,
  api_keys: apiKeys,
  secrets,
  audit_events: auditEvents,
})
