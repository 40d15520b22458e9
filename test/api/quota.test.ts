import { afterAll, beforeAll, expect, test } from 'vitest'
import { ADMIN_TOKEN, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** How many tokens a customer may be issued per minute, and how often its sessions may be refreshed. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld({ TOKENS_PER_MINUTE: '5' })
  assay = await world.replica()
})
afterAll(() => world.stop())

const statuses = async (many: number, ask: () => Promise<{ status: number }>) => {
  const all: number[] = []
  for (let i = 0; i < many; i++) all.push((await ask()).status)
  return all
}

const setPolicy = async (customer: Customer, body: object) => {
  const path = `/admin/customers/${customer.id}/policy`
  const headers = { ...bearer(ADMIN_TOKEN), 'Content-Type': 'application/json' }
  const { status } = await assay.request(path, { method: 'PUT', headers, body: JSON.stringify(body) })
  expect(status).toBe(200)
}

test('a customer without tokens left is told when to retry, and others are not affected', async () => {
  const [busy, quiet] = [await assay.signUp(), await assay.signUp()]
  expect(await statuses(6, () => busy.issue())).toEqual([200, 200, 200, 200, 200, 429])
  const { status, headers, json } = await busy.issue()
  expect(status).toBe(429)
  expect(json.error).toBe('too_many_requests')
  expect(json.error_description).toMatch(
    /5 tokens a minute are used up; try again in \d+ s, or ask the operator/,
  )
  const wait = Number(headers.get('retry-after'))
  expect(wait).toBeGreaterThan(50)
  expect(headers.get('ratelimit-policy')).toBe('"tokens";q=5;w=60')
  expect(headers.get('ratelimit')).toBe(`"tokens";r=0;t=${wait}`)
  expect((await quiet.issue()).status).toBe(200)
})

test('a minute later the full number is available again', async () => {
  const customer = await assay.signUp()
  await statuses(5, () => customer.issue())
  expect((await customer.issue()).status).toBe(429)
  assay.clock.skip(60_000)
  await assay.changeFeed.poll()
  await assay.changeFeed.poll()
  expect((await customer.issue()).status).toBe(200)
})

test("an operator's limit applies at once, and the server's again once it is removed", async () => {
  const customer = await assay.signUp()
  await statuses(5, () => customer.issue())
  await setPolicy(customer, { tokens_per_minute: 8 })
  expect(await statuses(4, () => customer.issue())).toEqual([200, 200, 200, 429])
  await setPolicy(customer, {})
  expect((await customer.issue()).status).toBe(429)
})

test('sessions, client_credentials and a retried start count like tokens', async () => {
  const customer = await assay.signUp()
  await setPolicy(customer, { tokens_per_minute: 3 })
  await customer.session()
  await customer.issue()
  await customer.issue()
  const started = await assay.request('/issue', {
    method: 'POST',
    headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json', 'Idempotency-Key': 'one' },
    body: JSON.stringify({ refresh: true }),
  })
  const form = { ...bearer(customer.apiKey), 'Content-Type': 'application/x-www-form-urlencoded' }
  const body = 'grant_type=client_credentials'
  const granted = await assay.request('/token', { method: 'POST', headers: form, body })
  expect([started.status, granted.status]).toEqual([429, 429])
})

test('one session cannot use up the refreshes of the others', async () => {
  const customer = await assay.signUp()
  await setPolicy(customer, { tokens_per_minute: 1_000 })
  const [one, other] = [await customer.session(), await customer.session()]
  let next = one.refresh_token
  const refresh = async () => {
    const answer = await assay.refresh(next)
    next = answer.json.refresh_token ?? next
    return answer
  }
  const all = await statuses(61, refresh)
  expect(all).toEqual([...Array(60).fill(200), 429])
  const { headers, json } = await refresh()
  expect(headers.get('ratelimit-policy')).toBe('"session";q=60;w=60')
  expect(json.error_description).toMatch(/refresh only when the access token is about to expire/)
  expect((await assay.refresh(other.refresh_token)).status).toBe(200)
  assay.clock.skip(60_000)
  await assay.changeFeed.poll()
  await assay.changeFeed.poll()
  expect((await refresh()).status).toBe(200)
})

test("all sessions of a customer together have the customer's limit of refreshes", async () => {
  const customer = await assay.signUp()
  await setPolicy(customer, { tokens_per_minute: 3 })
  const sessions = [await customer.session(), await customer.session(), await customer.session()]
  const all: number[] = []
  for (const { refresh_token } of [...sessions, sessions[0]!])
    all.push((await assay.refresh(refresh_token)).status)
  expect(all).toEqual([200, 200, 200, 429])
})

test.each(['session', 'customer'])(
  'using up the limit of the %s does not keep the owner of a stolen token from ending its session',
  async limit => {
    const customer = await assay.signUp()
    await setPolicy(customer, { tokens_per_minute: limit === 'session' ? 1_000 : 20 })
    const { refresh_token: stolen, session_id } = await customer.session()
    let next = stolen
    const refresh = async () => {
      const answer = await assay.refresh(next)
      next = answer.json.refresh_token ?? next
      return answer
    }
    // A thief who refreshes until it is refused.
    for (let status = 200; status === 200; ) ({ status } = await refresh())
    expect((await refresh()).status).toBe(429)
    const { status, json } = await assay.refresh(stolen)
    expect([status, json.error]).toEqual([400, 'invalid_grant'])
    const [row] = await world.admin.query('select revoked_at from assay.sessions where id = $1', [session_id])
    expect(row).toEqual({ revoked_at: expect.any(Date) })
  },
)

test('older tokens are exempt once a minute, and only a few per session', async () => {
  const customer = await assay.signUp()
  await setPolicy(customer, { tokens_per_minute: 1_000 })
  const tokens = [(await customer.session()).refresh_token as string]
  for (let status = 200; status === 200; ) {
    const answer = await assay.refresh(tokens.at(-1)!)
    ;({ status } = answer)
    if (status === 200) tokens.push(answer.json.refresh_token)
  }
  const replayed = tokens.at(-2)!
  expect(await statuses(3, () => assay.refresh(replayed))).toEqual([200, 429, 429])
})
