import { Hono } from 'hono'
import { z } from 'zod'
import { RIGHTS } from '../../clients/rights.ts'
import {
  changeService,
  createService,
  deleteService,
  listServices,
  rotateCredential,
  type ServiceRow,
} from '../../clients/service-clients.ts'
import { actAndWait, actorContext } from '../../http/act.ts'
import { readJson } from '../../http/body.ts'
import type { OperatorEnv } from '../../http/env.ts'
import { idempotencyKey, idParam, noQuery, present } from '../../http/params.ts'
import { json, noContent } from '../../http/respond.ts'
import { distinct, listOf } from '../../http/schemas.ts'
import { ANY, SCOPE_TOKEN } from '../../jwt/scopes.ts'
import { ApiError } from '../../lib/errors.ts'

const customerId = z.string().regex(/^[a-z2-7]{16}$/, "a customer's id")
const allowedScope = z
  .string()
  .regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash')
  .max(128)
  .refine(scope => scope !== ANY, 'to allow any scope, omit scopes')

const NAME = 'a letter, then up to 39 of a-z 0-9 -, for example shop-api'
const RIGHT = `one or more of ${RIGHTS.join(', ')}`

const permissions = z.strictObject({
  may: listOf(z.enum(RIGHTS, RIGHT), { min: 1, max: 50 }).transform(list => [...new Set(list)]),
  customers: listOf(customerId, { min: 1, max: 200 }).transform(distinct).optional(),
  scopes: listOf(allowedScope, { min: 1, max: 50 }).transform(distinct).optional(),
})

/** A service that is limited to some customers could learn from the answers to creations which emails other customers have. */
const isConsistent = ({ may, customers }: z.output<typeof permissions>) =>
  customers === undefined || !may.includes('create')

const INCONSISTENT =
  "a service that is limited to some customers can't create others; omit customers, or the right create"

const createRequest = permissions
  .extend({ name: z.string('is missing').regex(/^[a-z][a-z0-9-]{0,39}$/, NAME) })
  .refine(isConsistent, INCONSISTENT)

const changeRequest = permissions.refine(isConsistent, INCONSISTENT)

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
    'overlap keeps the current credential valid, but end: current ends it; send only one of them',
  )

/** Services created by operators, without those of the setting SERVICES. */
export const services = new Hono<OperatorEnv>()
  .get('/', noQuery, async c => {
    const services = await listServices(c.get('services'))
    return json(c, { services: services.map(serializeService) })
  })
  .post('/', noQuery, async c => {
    const { name, may, customers, scopes } = await readJson(c, createRequest)
    const context = actorContext(c)
    const described = { name, may, customers, scopes }
    const key = idempotencyKey(c)
    const { service, credential } = await createService(c.get('services'), described, context, key)
    return json(c, { ...serializeService(service), credential }, 201)
  })
  // The request replaces the rights and the limits: a limit that it omits is removed.
  .put('/:id', async c => {
    const { service } = await actAndWait(c, async (services, context) => {
      const { may, customers, scopes } = await readJson(c, changeRequest)
      return changeService(services, idParam(c), { may, customers, scopes }, context)
    })
    return json(c, serializeService(service))
  })
  // With an overlap of 0 the old credential is refused at once here, and elsewhere within MAX_STALENESS. The answer doesn't
  // wait for that: it holds the new credential, and must not be lost.
  .post('/:id/rotate', noQuery, async c => {
    const { overlap = DAY_SECONDS, end } = await readJson(c, rotateRequest)
    const context = actorContext(c)
    const rotation = { overlap, end }
    const { service, credential } = await rotateCredential(c.get('services'), idParam(c), rotation, context)
    return json(c, { ...serializeService(service), credential })
  })
  .delete('/:id', async c => {
    const seq = await actAndWait(c, (services, context) => deleteService(services, idParam(c), context))
    if (seq === undefined) throw new ApiError('not_found', 'no such service; check the id')
    return noContent(c)
  })

const serializeService = (service: ServiceRow) =>
  present({
    id: service.id,
    name: service.name,
    may: JSON.parse(service.may),
    customers: service.customers === null ? undefined : JSON.parse(service.customers),
    scopes: service.scopes === null ? undefined : JSON.parse(service.scopes),
    created_at: service.createdAt,
    last_used_at: service.lastUsedAt,
    previous_until: service.previousUntil,
  })
