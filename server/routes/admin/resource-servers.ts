import { z } from 'zod'
import type { ServerRow } from '../../clients/resource-servers.ts'
import { readJson } from '../../http/body.ts'
import type { Call, Routes } from '../../http/call.ts'
import { waitForAll, waitOf } from '../../http/consistency.ts'
import { auditContextOf, type Services } from '../../http/env.ts'
import { idempotencyKey, idOf, present } from '../../http/params.ts'
import { json, NO_STORE, noContent } from '../../http/respond.ts'
import { name } from '../../http/schemas.ts'
import { SCOPE_TOKEN } from '../../jwt/scopes.ts'
import { ApiError } from '../../lib/errors.ts'
import { operator } from './operator.ts'

type Needs = Pick<Services, 'changeFeed' | 'operators' | 'proxies' | 'servers'>

/** Resource servers that operators make; those of the setting are not among them. */
export const serverRoutes = (services: Needs): Routes => ({
  'GET /admin/servers': listServers(services),
  'POST /admin/servers': addServer(services),
  'PUT /admin/servers/:id': changeServer(services),
  'POST /admin/servers/:id/rotate': rotateServer(services),
  'DELETE /admin/servers/:id': deleteServer(services),
})

function listServers(services: Needs) {
  return async function listServers(call: Call) {
    operator(call, services)
    return json({ servers: (await services.servers.list()).map(toServer) })
  }
}

const serverRequest = z.strictObject({
  name: name.optional(),
  customers: z
    .array(z.string().regex(/^[a-z2-7]{16}$/, "a customer's id"))
    .min(1)
    .max(200)
    .optional(),
  scopes: z
    .array(z.string().regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash').max(128))
    .min(1)
    .max(50)
    .optional(),
})

function addServer(services: Needs) {
  return async function addServer(call: Call) {
    const origin = auditContextOf(call, services, operator(call, services))
    const { name, customers, scopes } = await readJson(call, serverRequest)
    const { server, credential } = await services.servers.create(
      name,
      { customers, scopes },
      origin,
      idempotencyKey(call),
    )
    return json({ ...toServer(server), credential }, 201, NO_STORE)
  }
}

/** The limits are as the request says, none where it says none. */
function changeServer(services: Needs) {
  return async function changeServer(call: Call) {
    const origin = auditContextOf(call, services, operator(call, services))
    const wait = waitOf(call)
    const { name, customers, scopes } = await readJson(call, serverRequest)
    const { server, seq } = await services.servers.change(idOf(call), name, { customers, scopes }, origin)
    await waitForAll(services, wait, seq)
    return json(toServer(server))
  }
}

const DAY_SECONDS = 86_400

const rotateRequest = z
  .strictObject({
    overlap: z
      .int()
      .min(0)
      .max(30 * DAY_SECONDS, 'seconds, at most thirty days')
      .optional(),
    end: z.enum(['previous', 'current'], 'previous or current').optional(),
  })
  .refine(
    ({ overlap, end }) => overlap === undefined || end !== 'current',
    'an overlap is for the current credential, and end: current ends that; leave one of them out',
  )

/**
 * With an overlap of 0 the credential until now is refused at once here, and elsewhere within MAX_STALENESS: it has leaked. It
 * isn't waited for, since the new one must not be lost with an answer that could not be given.
 */
function rotateServer(services: Needs) {
  return async function rotateServer(call: Call) {
    const origin = auditContextOf(call, services, operator(call, services))
    const { overlap = DAY_SECONDS, end } = await readJson(call, rotateRequest)
    const { server, credential } = await services.servers.rotate(idOf(call), { overlap, end }, origin)
    return json({ ...toServer(server), credential }, 200, NO_STORE)
  }
}

function deleteServer(services: Needs) {
  return async function deleteServer(call: Call) {
    const origin = auditContextOf(call, services, operator(call, services))
    const wait = waitOf(call)
    const seq = await services.servers.delete(idOf(call), origin)
    // Before the 404 too: what an earlier try deleted may not be known everywhere yet.
    await waitForAll(services, wait, seq)
    if (seq === undefined) throw new ApiError('not_found', 'no such resource server')
    return noContent()
  }
}

const toServer = ({ id, name, customers, scopes, createdAt, previousUntil }: ServerRow) =>
  present({
    id,
    name,
    customers: customers === null ? undefined : JSON.parse(customers),
    scopes: scopes === null ? undefined : JSON.parse(scopes),
    created_at: createdAt,
    previous_until: previousUntil,
  })
