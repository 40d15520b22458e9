import { Hono } from 'hono'
import { z } from 'zod'
import {
  changeResourceServer,
  createResourceServer,
  deleteResourceServer,
  listResourceServers,
  rotateCredential,
  type ServerRow,
} from '../../clients/resource-servers.ts'
import { actAndWait, actorContext } from '../../http/act.ts'
import { readJson } from '../../http/body.ts'
import type { OperatorEnv } from '../../http/env.ts'
import { idempotencyKey, idParam, noQuery, present } from '../../http/params.ts'
import { json, noContent } from '../../http/respond.ts'
import { distinct, listOf, name } from '../../http/schemas.ts'
import { SCOPE_TOKEN } from '../../jwt/scopes.ts'
import { ApiError } from '../../lib/errors.ts'

const customerId = z.string().regex(/^[a-z2-7]{16}$/, "a customer's id")
const allowedScope = z
  .string()
  .regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash')
  .max(128)

const serverRequest = z.strictObject({
  name: name.optional(),
  customers: listOf(customerId, { min: 1, max: 200 }).transform(distinct).optional(),
  scopes: listOf(allowedScope, { min: 1, max: 50 }).transform(distinct).optional(),
})

const DAY_SECONDS = 86_400
const OVERLAP = 'whole seconds, from 0 to 2592000 (thirty days)'

const rotateRequest = z
  .strictObject({
    overlap: z
      .int(OVERLAP)
      .min(0, OVERLAP)
      .max(30 * DAY_SECONDS, OVERLAP)
      .optional(),
    end: z.enum(['previous', 'current'], 'previous or current').optional(),
  })
  .refine(
    ({ overlap, end }) => overlap === undefined || end !== 'current',
    'an overlap is for the current credential, and end: current ends that; leave one of them out',
  )

/** Resource servers created by operators. The setting RESOURCE_SERVERS is not included. */
export const resourceServers = new Hono<OperatorEnv>()
  .get('/', noQuery, async c => {
    const servers = await listResourceServers(c.get('services'))
    return json(c, { servers: servers.map(serializeServer) })
  })
  .post('/', noQuery, async c => {
    const { name, customers, scopes } = await readJson(c, serverRequest)
    const context = actorContext(c)
    const described = { name, customers, scopes }
    const key = idempotencyKey(c)
    const { server, credential } = await createResourceServer(c.get('services'), described, context, key)
    return json(c, { ...serializeServer(server), credential }, 201)
  })
  // The request replaces the limits: without any, the server has none.
  .put('/:id', async c => {
    const { server } = await actAndWait(c, async (services, context) => {
      const { name, customers, scopes } = await readJson(c, serverRequest)
      return changeResourceServer(services, idParam(c), { name, customers, scopes }, context)
    })
    return json(c, serializeServer(server))
  })
  // With an overlap of 0 the old credential is refused at once here, and elsewhere within MAX_STALENESS. The answer doesn't
  // wait for that: it holds the new credential, and must not be lost.
  .post('/:id/rotate', noQuery, async c => {
    const { overlap = DAY_SECONDS, end } = await readJson(c, rotateRequest)
    const context = actorContext(c)
    const rotation = { overlap, end }
    const { server, credential } = await rotateCredential(c.get('services'), idParam(c), rotation, context)
    return json(c, { ...serializeServer(server), credential })
  })
  .delete('/:id', async c => {
    const seq = await actAndWait(c, (services, context) =>
      deleteResourceServer(services, idParam(c), context),
    )
    if (seq === undefined) throw new ApiError('not_found', 'no such resource server')
    return noContent(c)
  })

const serializeServer = ({ id, name, customers, scopes, createdAt, previousUntil }: ServerRow) =>
  present({
    id,
    name,
    customers: customers === null ? undefined : JSON.parse(customers),
    scopes: scopes === null ? undefined : JSON.parse(scopes),
    created_at: createdAt,
    previous_until: previousUntil,
  })
