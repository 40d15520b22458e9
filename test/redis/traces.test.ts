import { afterAll, beforeAll, expect, test } from 'vitest'
import { coldReplica, type RedisWorld, redisWorld, shelved } from '../support/redis-key-cache.ts'
import { loadSdk, newTrace } from '../support/spans.ts'
import { bearer } from '../support/world.ts'

const spans = loadSdk()

let made: RedisWorld

beforeAll(async () => {
  made = await redisWorld()
})
afterAll(() => made.stop())

test('a signup is counted in Redis, and stores the record of its customer there', async () => {
  const trace = newTrace()
  const account = { email: `${trace.spanId}@example.com`, password: 'correct horse battery' }
  expect((await made.here.postJson('/api/auth/signup', account, trace.headers)).status).toBe(201)
  await expect
    .poll(() => spans.told(trace).toSorted())
    .toEqual([
      '^ > POST /api/auth/signup',
      // The signups of the address per minute and per day.
      '^ > POST /api/auth/signup > EVAL',
      '^ > POST /api/auth/signup > EVAL',
      '^ > POST /api/auth/signup > GETRANGE',
      '^ > POST /api/auth/signup > SET',
      '^ > POST /api/auth/signup > findRecords',
      '^ > POST /api/auth/signup > insertCustomer',
    ])
})

test('a verify that finds its record in Redis makes no other call; a command is recorded only by its name', async () => {
  const { token } = await shelved(made)
  const { replica } = await coldReplica(made.world)
  const trace = newTrace()
  const answer = await replica.request('/verify', { headers: { ...bearer(token), ...trace.headers } })
  expect(answer.status).toBe(200)
  expect(spans.told(trace)).toEqual(['^ > GET /verify > GETRANGE', '^ > GET /verify'])
  const [command] = spans.of(trace)
  expect(command).toMatchObject({ kind: 2, status: { code: 0 } })
  expect(command!.attributes).toEqual({ 'db.system.name': 'redis', 'db.operation.name': 'GETRANGE' })
})

test('a revocation notifies the other replicas', async () => {
  const { customer, token } = await shelved(made)
  const trace = newTrace()
  await made.here.postForm('/revoke', { token }, { ...bearer(customer.apiKey), ...trace.headers })
  await expect.poll(() => spans.told(trace)).toContain('^ > POST /revoke > PUBLISH')
})
