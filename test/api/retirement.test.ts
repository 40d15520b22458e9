import { afterAll, beforeAll, expect, test } from 'vitest'
import { forger } from '../support/forge.ts'
import { holding, named, replicaOn } from '../support/holding.ts'
import { logIn } from '../support/plant.ts'
import { randomFrom } from '../support/sessions.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

type Use = 'access' | 'refresh'

const rotate = (accessToken: string, use: Use) =>
  here.postJson('/api/secrets/rotate', { use }, bearer(accessToken))
const retire = (accessToken: string, use: Use, version = 1, query = '') =>
  here.postJson(`/api/secrets/retire${query}`, { use, version }, bearer(accessToken))
const stateOf = async (accessToken: string, use: Use, version = 1) =>
  ((await here.get('/api/secrets', accessToken)).json.secrets as Record<string, unknown>[]).find(
    secret => secret.use === use && secret.version === version,
  )!.state

/** This long after a rotation, nothing that began before it is still running (ms). */
const QUIET = 71_000
/** The longest default lifetime of an access token (ms). */
const TOKEN = 300_000

/** A session's newest refresh token after this many refreshes, and the access token that came with it. */
async function refreshed(refreshToken: string, times: number) {
  let tokens = { refresh_token: refreshToken, access_token: '' }
  for (let i = 0; i < times; i++) tokens = (await here.refresh(tokens.refresh_token)).json
  return tokens
}

/** A customer whose own session has left the first refresh secret, and without running requests. */
async function movedOn() {
  const customer = await here.signUp()
  await rotate(customer.accessToken, 'refresh')
  const { refresh_token } = await refreshed(customer.refreshToken, 1)
  await world.advance(QUIET)
  return { customer, account: (await refreshed(refresh_token, 1)).access_token }
}

test('a version without live tokens can be retired on request, long before maintenance would do it', async () => {
  const { customer, account } = await movedOn()
  const { status, json } = await retire(account, 'refresh')
  expect(status).toBe(200)
  expect(json).toMatchObject({ use: 'refresh', version: 1, state: 'retired' })
  expect(await stateOf(account, 'refresh')).toBe('retired')
  expect((await here.verify(account)).status).toBe(200)
  const events = await here.get('/api/audit?type=secret.retired', account)
  expect(events.json.events).toMatchObject([
    { actor: `session:${claimsOf(customer.accessToken).sid}`, detail: { use: 'refresh', version: 1 } },
  ])
})

test('a repeated request gets the same answer, and the act is done and audited once', async () => {
  const { account } = await movedOn()
  const [first, again] = [await retire(account, 'refresh'), await retire(account, 'refresh', 1, '?wait=all')]
  expect([again.status, again.json]).toEqual([200, first.json])
  const { events } = (await here.get('/api/audit?type=secret.retired', account)).json
  expect(events).toHaveLength(1)
})

test('a version that sessions use stays, and the answer says how many and what an emergency would end', async () => {
  const { customer, account } = await movedOn()
  const sessions = [await customer.session(), await customer.session()]
  await rotate(account, 'refresh')
  await world.advance(QUIET)
  const { status, json } = await retire(account, 'refresh', 2)
  expect([status, json.error]).toEqual([409, 'conflict'])
  expect(json.live_sessions).toBe(3)
  const dry = { use: 'refresh', now: true, dry_run: true }
  const emergency = await here.postJson('/api/secrets/rotate', dry, bearer(account))
  expect(json.would_end).toEqual(emergency.json.would_end)
  expect(json.detail).toBe(
    '3 live sessions still use this version; wait until each has been refreshed twice, or rotate refresh with now, ' +
      `which would end 3 sessions and at most ${json.would_end.tokens} access tokens`,
  )
  expect(await stateOf(account, 'refresh', 2)).toBe('previous')
  for (const { refresh_token } of sessions) expect((await here.refresh(refresh_token)).status).toBe(200)
})

test('a version is kept for a client that never got the answer to its refresh', async () => {
  const { customer, account } = await movedOn()
  const { refresh_token } = await customer.session()
  await rotate(account, 'refresh')
  await here.refresh(refresh_token)
  await world.advance(QUIET)
  const { access_token: own } = await logIn(here, customer)
  await here.request(`/api/sessions/${claimsOf(account).sid}`, { method: 'DELETE', headers: bearer(own) })
  expect((await retire(own, 'refresh', 2)).json).toMatchObject({ error: 'conflict', live_sessions: 1 })
  expect((await there.refresh(refresh_token)).status).toBe(200)
})

test("a version is kept for a slow tab's third-newest token, within the grace", async () => {
  const customer = await here.signUp()
  const { refresh_token: slow } = await refreshed(customer.refreshToken, 1)
  await rotate(customer.accessToken, 'refresh')
  await world.advance(QUIET)
  const { access_token: account } = await refreshed(slow, 2)
  const early = await retire(account, 'refresh')
  expect([early.status, early.json.live_sessions]).toEqual([409, 0])
  expect((await there.refresh(slow)).status).toBe(200)
  await world.advance(11_000)
  expect((await retire(account, 'refresh')).status).toBe(200)
})

test('an access version can be retired once its last token may have expired, and not before', async () => {
  const customer = await here.signUp()
  const long = (await customer.issue({ expires_in: 900 })).json.access_token
  await rotate(customer.accessToken, 'access')
  await world.advance(TOKEN + 1_000)
  const { access_token: account } = await logIn(here, customer)
  const early = await retire(account, 'access')
  expect(early.status).toBe(409)
  expect(early.json).toMatchObject({ live_tokens: 1, would_end: { sessions: 0, tokens: 2 } })
  expect(early.json.detail).toContain('at most 1 live access tokens may use this version')
  for (const assay of [here, there]) expect((await assay.verify(long)).status).toBe(200)
  await world.advance(601_000)
  const later = await logIn(here, customer)
  expect((await retire(later.access_token, 'access')).status).toBe(200)
})

test('a token issued to a session no longer holds its version once the session was ended', async () => {
  const customer = await here.signUp()
  const { session_id } = await customer.session()
  await rotate(customer.accessToken, 'access')
  await world.advance(QUIET)
  expect((await retire(customer.accessToken, 'access')).json.live_tokens).toBe(2)
  await here.request(`/api/sessions/${session_id}`, { method: 'DELETE', headers: bearer(customer.apiKey) })
  expect((await retire(customer.accessToken, 'access')).json.live_tokens).toBe(1)
})

test('a token of unknown lifetime is assumed to live as long as any token may', async () => {
  const customer = await here.signUp()
  await customer.issue()
  await rotate(customer.accessToken, 'access')
  await world.admin.query(`update assay.audit_events set detail = null where customer_id = $1`, [customer.id])
  await world.advance(23 * 3_600_000)
  const early = await logIn(here, customer)
  expect((await retire(early.access_token, 'access')).json.live_tokens).toBe(1)
  await world.advance(3_600_000)
  const later = await logIn(here, customer)
  expect((await retire(later.access_token, 'access')).status).toBe(200)
})

test.each(['access', 'refresh'] as const)(
  'just after its replacement a version of %s stays, because requests may still be running',
  async use => {
    const customer = await here.signUp()
    // All its tokens have expired: only the recent rotation prevents the retirement.
    await world.admin.query('update assay.sessions set revoked_at = assay.now() where customer_id = $1', [
      customer.id,
    ])
    await rotate(customer.accessToken, use)
    const { status, json } = await retire(customer.accessToken, use)
    expect([status, json.live_sessions ?? json.live_tokens]).toEqual([409, 0])
    expect(json.detail).toContain('try again in 70 s')
    await world.advance(QUIET)
    expect((await retire(customer.accessToken, use)).status).toBe(200)
  },
)

test('the current version cannot be retired, an unknown one is not found, and malformed ones are refused', async () => {
  const { accessToken } = await here.signUp()
  for (const use of ['access', 'refresh'] as const) {
    const { status, json } = await retire(accessToken, use)
    expect([status, json.error]).toEqual([409, 'conflict'])
    expect(json.detail).toContain('rotate first')
    expect((await retire(accessToken, use, 2)).status).toBe(404)
  }
  const bodies = [
    {},
    { use: 'both', version: 1 },
    { use: 'access' },
    { use: 'access', version: 0 },
    { use: 'access', version: 1.5 },
    { use: 'access', version: '1' },
    { use: 'access', version: 2 ** 31 },
    { use: 'access', version: 1, now: true },
  ]
  for (const body of bodies) {
    const { status } = await here.postJson('/api/secrets/retire', body, bearer(accessToken))
    expect(`${JSON.stringify(body)} ${status}`).toBe(`${JSON.stringify(body)} 400`)
  }
  expect((await retire(accessToken, 'access', 1, '?wait=al')).status).toBe(400)
})

test("another customer's version is unaffected", async () => {
  const { account } = await movedOn()
  const { accessToken: stranger } = await here.signUp()
  await rotate(stranger, 'refresh')
  await rotate(stranger, 'refresh')
  expect((await retire(account, 'refresh', 3)).status).toBe(404)
})

test('forgeries with an old secret are refused on every replica once that secret is retired', async () => {
  const customer = await here.signUp()
  const thief = await forger(here, customer, 'access')
  const forged = thief.withClaims({ exp: Number(thief.claims.exp) + 3_600 })
  await rotate(customer.accessToken, 'access')
  await world.advance(TOKEN + QUIET)
  for (const assay of [here, there]) expect((await assay.verify(forged)).status).toBe(200)
  const { access_token: account } = await logIn(here, customer)
  expect((await retire(account, 'access')).status).toBe(200)
  expect((await here.verify(forged)).status).toBe(401)
  // A client that lost that answer repeats the request, and waits for all replicas.
  expect((await retire(account, 'access', 1, '?wait=all')).status).toBe(200)
  expect((await there.verify(forged)).status).toBe(401)
})

test('twenty concurrent requests retire a version once', async () => {
  const { account } = await movedOn()
  const answers = await Promise.all(Array.from({ length: 20 }, () => retire(account, 'refresh')))
  expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200))
  expect(new Set(answers.map(({ json }) => json.retired_at)).size).toBe(1)
  const { events } = (await here.get('/api/audit?type=secret.retired', account)).json
  expect(events).toHaveLength(1)
})

/** The database's answer is held until the versions that it names were replaced long ago. */
test.each(['/issue', '/refresh'])(
  'a version that %s is signing with is kept, even if everything else has moved on',
  async path => {
    const { customer, account } = await movedOn()
    const { refresh_token } = await customer.session({ expires_in: 900 })
    const database = holding(world.db)
    const slow = await replicaOn(world, database.db)
    const held = database.hold(named('refreshSessions', 'insertSessions'))
    const body = { subject: 'user-2', refresh: true, expires_in: 900 }
    const asked =
      path === '/refresh'
        ? slow.post(path, { refresh_token })
        : slow.request(path, {
            method: 'POST',
            headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json' },
            body: JSON.stringify(body),
          })
    await held.has
    for (const use of ['access', 'refresh'] as const) await rotate(account, use)
    await world.advance(TOKEN + QUIET)
    const own = (await logIn(here, customer)).access_token
    await here.request(`/api/sessions/${claimsOf(account).sid}`, { method: 'DELETE', headers: bearer(own) })
    if (path === '/issue') await here.postForm('/revoke', { token: refresh_token })
    expect((await retire(own, 'refresh', 2)).json).toMatchObject({ error: 'conflict', live_sessions: 1 })
    const tokens = path === '/issue' ? 1 : 2
    expect((await retire(own, 'access')).json).toMatchObject({ error: 'conflict', live_tokens: tokens })
    held.release()
    const { status, json } = await asked
    expect(status).toBe(200)
    for (const assay of [here, there]) expect((await assay.verify(json.access_token)).status).toBe(200)
    expect((await there.refresh(json.refresh_token)).status).toBe(200)
  },
)

/** A client that keeps its token until it receives the next, and sometimes loses the answer. */
function honest(refreshToken: string) {
  let kept = refreshToken
  return async (heard: boolean, assay: Replica) => {
    const { status, json } = await assay.refresh(kept)
    if (heard && status === 200) kept = json.refresh_token
    return { status, accessToken: json.access_token as string }
  }
}

test('however a customer rotates and retires, no honest client is logged out', async () => {
  const random = randomFrom(20_261_122)
  const pick = (below: number) => Math.floor(random() * below)
  const customer: Customer = await here.signUp()
  const own = honest(customer.refreshToken)
  const clients = [own]
  for (let i = 0; i < 4; i++) clients.push(honest((await customer.session()).refresh_token))
  const counts = { retired: 0, kept: 0, refreshed: 0 }
  for (let step = 0; step < 160; step++) {
    const assay = random() < 0.5 ? here : there
    const [what, which] = [random(), pick(clients.length)]
    if (what < 0.5) {
      expect((await clients[which]!(random() < 0.7, assay)).status).toBe(200)
      counts.refreshed++
    } else if (what < 0.6) await world.advance(pick(QUIET * 2))
    else {
      const { accessToken } = await own(true, assay)
      if (what < 0.7) await rotate(accessToken, 'refresh')
      else {
        const { status } = await retire(accessToken, 'refresh', 1 + pick(5))
        if (status === 200) counts.retired++
        else if (status === 409) counts.kept++
      }
    }
  }
  for (const client of clients) expect((await client(true, there)).status).toBe(200)
  for (const count of Object.values(counts)) expect(count).toBeGreaterThan(3)
})
