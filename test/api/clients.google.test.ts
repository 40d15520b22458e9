import { OAuth2Client } from 'google-auth-library'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { checkedFetch, makeDiscoverable } from '../support/foreign.ts'
import { countsOf, storedSession } from '../support/sessions.ts'
import { type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Google's library for Node, unmodified. Like nodemailer and offlineimap it keeps its first refresh token forever. */

let world: World
let assay: Replica
let issuer: string
let customer: Customer
let checked: ReturnType<typeof checkedFetch>

beforeAll(async () => {
  world = await makeWorld()
  ;({ assay, issuer } = await makeDiscoverable(world))
})
afterAll(() => world.stop())
beforeEach(async () => {
  await assay.serve()
  checked = checkedFetch()
  customer = await assay.signUp()
})

const MINUTE = 60_000
const DAY = 86_400_000

const setPolicy = (policy: object) => assay.setPolicy(customer.id, policy)

async function client(more: { eagerRefreshThresholdMillis?: number } = {}) {
  const { refresh_token, session_id } = await customer.session()
  const google = new OAuth2Client({
    clientId: customer.id,
    clientSecret: customer.apiKey,
    endpoints: { oauth2TokenUrl: `${issuer}/token` },
    transporterOptions: { fetchImplementation: (url, init) => checked(String(url), init as never) },
    ...more,
  })
  google.setCredentials({ refresh_token })
  return { google, refresh_token, session_id }
}

/** Requests an access token and uses it, so that the server sees that the client has it. */
async function use(google: OAuth2Client) {
  const { token } = await google.getAccessToken()
  expect((await assay.verify(token!)).status).toBe(200)
  await assay.sessions.flush()
}

describe('google-auth-library', () => {
  test('loses its session after the grace where refresh tokens are rotated', async () => {
    const { google, session_id } = await client()
    await use(google)
    await world.advance(MINUTE)
    const error = await google.getAccessToken().catch(error => error)
    expect(error.response.data).toMatchObject({ error: 'invalid_grant' })
    expect(await countsOf(world, session_id)).toHaveProperty('session.reuse_detected', 1)
  })

  test('keeps its session under reusable while it is in use, up to its absolute expiry', async () => {
    await setPolicy({ refresh_policy: 'reusable' })
    const { google, refresh_token, session_id } = await client()
    for (let refreshes = 0; refreshes < 4; refreshes++) {
      await use(google)
      expect(google.credentials.refresh_token).toBe(refresh_token)
      await world.advance(22 * DAY)
    }
    await use(google)
    expect(await storedSession(world, session_id)).toMatchObject({ gen: 1, revoked: false })
    await world.advance(3 * DAY)
    await expect(google.getAccessToken()).rejects.toMatchObject({ message: 'invalid_grant' })
    expect(await countsOf(world, session_id)).not.toHaveProperty('session.reuse_detected')
  })

  /** Requests to the server for six uses of a five-minute access token. */
  async function requestsOf({ google }: Awaited<ReturnType<typeof client>>) {
    for (let turn = 0; turn < 6; turn++) await use(google)
    return checked.sent.length
  }

  test('refreshes on every use of a five-minute token, unless configured to refresh later', async () => {
    await setPolicy({ refresh_policy: 'reusable' })
    // It considers a five-minute token due a millisecond after receiving it.
    expect(await requestsOf(await client())).toBeGreaterThan(3)
    checked = checkedFetch()
    expect(await requestsOf(await client({ eagerRefreshThresholdMillis: 30_000 }))).toBe(1)
  })

  test('refreshes less often where its customer’s policy has longer tokens', async () => {
    await setPolicy({ refresh_policy: 'reusable', access_token_ttl: 900 })
    expect(await requestsOf(await client())).toBe(1)
  })
})
