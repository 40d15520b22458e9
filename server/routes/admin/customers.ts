import { type Context, Hono } from 'hono'
import { z } from 'zod'
import {
  type AdminCustomer,
  type Change,
  changeCustomer,
  disableCustomer,
  type ErasureReport,
  enableCustomer,
  eraseCustomer,
  findCustomer,
  findMatchingCustomers,
  listCustomers,
  searchCustomers,
  setPassword,
} from '../../customers/admin.ts'
import { createCustomer } from '../../customers/provisioning.ts'
import { actAndWait, actorContext } from '../../http/act.ts'
import { readJson } from '../../http/body.ts'
import type { AppContext, OperatorEnv } from '../../http/env.ts'
import { decodeCursor, decodeTextCursor, pageOf, pageSize, textPageOf } from '../../http/pagination.ts'
import { customerParam, idempotencyKey, noQuery, present, readQuery } from '../../http/params.ts'
import { json, noContent } from '../../http/respond.ts'
import { name } from '../../http/schemas.ts'
import { isAsymmetric } from '../../jwt/algorithms.ts'
import { localVerification } from '../../keys/public-keys.ts'
import { ApiError } from '../../lib/errors.ts'
import type { Policy } from '../../tokens/policy.ts'
import { email, password } from '../account.ts'

const createRequest = z.strictObject({ email, name: name.optional(), password: password.optional() })

const changeRequest = z
  .strictObject({ email: email.optional(), name: name.optional() })
  .refine(change => Object.keys(change).length > 0, 'nothing to change; send email or name')

const passwordRequest = z.strictObject({ password })

/** Customers, managed by operators, and in part by services. */
export const customers = new Hono<OperatorEnv>()
  .get('/', async c => {
    const query = readQuery(c, LIST_PARAMS)
    const { page, nextCursor } = await LISTS[listBy(query)](c, query)
    return json(
      c,
      present({ customers: page.map(customer => serializeCustomer(c, customer)), next_cursor: nextCursor }),
    )
  })
  .post('/', noQuery, async c => {
    const { email, name, password } = await readJson(c, createRequest)
    const context = actorContext(c)
    const account = { email, name, password }
    const { customer, apiKey } = await createCustomer(c.get('services'), account, context, idempotencyKey(c))
    const body = present({ customer: serializeCustomer(c, customer), api_key: apiKey })
    return jsonWithETag(c, customer, body, 201)
  })
  .get('/:customer', noQuery, async c =>
    jsonWithETag(c, await findCustomer(c.get('services'), customerParam(c))),
  )
  .patch('/:customer', noQuery, async c => {
    const change = conditionalChange(c)
    const { email, name } = await readJson(c, changeRequest)
    const customer = await changeCustomer(c.get('services'), change, { email, name }, actorContext(c))
    return jsonWithETag(c, customer)
  })
  .post('/:customer/disable', c => setState(c, disableCustomer))
  .post('/:customer/enable', c => setState(c, enableCustomer))
  .put('/:customer/password', async c => {
    await actAndWait(c, async (services, context) => {
      const customerId = customerParam(c)
      const { password } = await readJson(c, passwordRequest)
      return setPassword(services, customerId, password, context)
    })
    return noContent(c)
  })
  // Erasure can't be undone. The customer's id in the path confirms which customer is meant.
  .delete('/:customer', async c => {
    const report = await actAndWait(c, (services, context) =>
      eraseCustomer(services, customerParam(c), context),
    )
    return json(c, serializeErasure(customerParam(c), report))
  })

const CRITERIA = ['keys_older_than', 'weak_hashes', 'unused_for'] as const
const LIST_PARAMS = ['email', 'name', ...CRITERIA, 'cursor', 'limit'] as const
type ListQuery = { [name in (typeof LIST_PARAMS)[number]]?: string }

/** Each list has its own order and cursor. */
const LISTS = {
  all: list,
  criteria: listMatching,
  email: (c: AppContext, query: ListQuery) => search(c, 'email', query),
  name: (c: AppContext, query: ListQuery) => search(c, 'name', query),
}

function listBy(query: ListQuery): keyof typeof LISTS {
  const isGiven = (name: keyof ListQuery) => query[name] !== undefined
  const asked = [
    ...(['email', 'name'] as const).filter(isGiven),
    ...(CRITERIA.some(isGiven) ? (['criteria'] as const) : []),
  ]
  if (asked.length > 1)
    throw new ApiError(
      'invalid_request',
      `send email, or name, or any of ${CRITERIA.join(', ')}: they can't be combined`,
    )
  return asked[0] ?? 'all'
}

function newestFirst({ cursor, limit }: ListQuery) {
  const size = pageSize(limit)
  const before = decodeCursor(cursor)
  return { size, position: { beforeAt: before?.at, beforeId: before?.id, limit: size + 1 } }
}

async function list(c: AppContext, query: ListQuery) {
  const { size, position } = newestFirst(query)
  const rows = await listCustomers(c.get('services'), position)
  return pageOf(rows, size, customer => customer.createdAt)
}

async function listMatching(c: Context<OperatorEnv>, query: ListQuery) {
  const { size, position } = newestFirst(query)
  if (query.weak_hashes !== undefined && query.weak_hashes !== 'true')
    throw new ApiError('invalid_request', 'weak_hashes: send true, or omit it')
  const criteria = {
    keysOlderThan: secondsParam('keys_older_than', query.keys_older_than),
    weakHashes: query.weak_hashes === 'true',
    unusedFor: secondsParam('unused_for', query.unused_for),
  }
  const rows = await findMatchingCustomers(c.get('services'), criteria, position, c.get('actor'))
  return pageOf(rows, size, customer => customer.createdAt)
}

function secondsParam(name: string, text: string | undefined): number | undefined {
  if (text !== undefined && !/^[1-9]\d{0,8}$/.test(text))
    throw new ApiError('invalid_request', `${name}: a whole number of seconds, from 1 to 999999999`)
  return text === undefined ? undefined : Number(text)
}

async function search(c: AppContext, by: 'email' | 'name', query: ListQuery) {
  const size = pageSize(query.limit)
  const prefix = query[by]!.trim()
  if (prefix === '')
    throw new ApiError('invalid_request', `${by}: is blank; send the first characters or omit it`)
  const after = decodeTextCursor(query.cursor)
  const position = { afterText: after?.text, afterId: after?.id, limit: size + 1 }
  return textPageOf(await searchCustomers(c.get('services'), by, { prefix, ...position }), size)
}

async function setState(c: Context<OperatorEnv>, act: typeof disableCustomer) {
  const { customer } = await actAndWait(c, (services, context) =>
    act(services, conditionalChange(c), context),
  )
  return jsonWithETag(c, customer)
}

const ENTITY_TAG = /^"(\d{1,9})"$/

/** If-Match (RFC 9110 13.1.1): the tag that a customer was read with, or `*` for any. */
export function conditionalChange(c: AppContext): Change {
  const header = c.req.header('if-match')?.trim()
  const customerId = customerParam(c)
  if (header === undefined || header === '*') return { customerId, revision: undefined }
  const [, revision] = ENTITY_TAG.exec(header) ?? []
  if (revision === undefined)
    throw new ApiError(
      'invalid_request',
      'If-Match: one ETag exactly as it was returned, with its quotes, or *',
    )
  return { customerId, revision: Number(revision) }
}

export const jsonWithETag = (
  c: AppContext,
  customer: AdminCustomer,
  body: object = serializeCustomer(c, customer),
  status = 200,
) => json(c, body, status, { ETag: `"${customer.revision}"` })

const serializeCustomer = (
  c: AppContext,
  { id, email, emailVerifiedAt, name, state, createdAt, ...policy }: AdminCustomer,
) =>
  present({
    ...{ id, email, email_verified_at: emailVerifiedAt, name, state, created_at: createdAt },
    policy: serializePolicy(policy),
    local_verification: isAsymmetric(policy.signingAlg)
      ? localVerification(c.get('services'), id)
      : undefined,
  })

/** Undefined when the customer has no policy: the server's settings apply. */
function serializePolicy(policy: Policy) {
  const own = present({
    scopes: policy.scopes?.split(' '),
    access_token_ttl: policy.accessTokenTtl,
    max_access_token_ttl: policy.maxAccessTokenTtl,
    refresh_token_ttl: policy.refreshTokenTtl,
    session_max_ttl: policy.sessionMaxTtl,
    refresh_policy: policy.refreshPolicy,
    key_max_age: policy.keyMaxAge,
    tokens_per_minute: policy.tokensPerMinute,
    signing_alg: policy.signingAlg,
  })
  return Object.keys(own).length > 0 ? own : undefined
}

const serializeErasure = (id: string, report: ErasureReport) => ({
  id,
  erased_at: report.erasedAt,
  sessions: report.sessions,
  api_keys: report.apiKeys,
  secrets: report.secrets,
  audit_events: report.auditEvents,
})
