import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { startDemoBackend } from '../support/backends.ts'
import { type Link, openLink } from '../support/link.ts'
import { findNginx, type Nginx, startNginx } from '../support/nginx.ts'
import { type Running, startAssay } from '../support/process.ts'
import { ADMIN_TOKEN, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

const MASTER_KEYS = `m1:${randomBytes(32).toString('base64')}`
const SETTINGS = { MASTER_KEYS, MAX_STALENESS: '500ms' }

const IDENTITY = ['Customer', 'Subject', 'Scope', 'Audience', 'Session', 'Token-Id', 'Expires', 'Claims']
const FORGED = Object.fromEntries(IDENTITY.map(name => [`X-Auth-${name}`, 'forged']))

describe.skipIf(!findNginx())('a real nginx with the shipped files (skipped where there is none)', () => {
  let world: World
  let assay: Replica
  let customer: Customer
  let backend: Awaited<ReturnType<typeof startDemoBackend>>
  let server: Awaited<ReturnType<Replica['serve']>>
  let nginx: Nginx

  beforeAll(async () => {
    world = await makeWorld(SETTINGS)
    assay = await world.replica()
    customer = await assay.signUp()
    backend = await startDemoBackend()
  })
  afterAll(async () => {
    await backend?.stop()
    await world?.stop()
  })
  beforeEach(async () => {
    server = await assay.serve()
    nginx = await start([server.port])
  })

  async function start(ports: number[]) {
    const started = await startNginx({ assay: ports, backend: backend.port })
    onTestFinished(started.stop)
    return started
  }

  const issue = async (wanted: object) => (await customer.issue(wanted)).json.access_token as string

  /** The answer through nginx; the demo backend's answer if it was reached. */
  async function get(path: string, token?: string, headers: Record<string, string> = {}, at = nginx) {
    const response = await fetch(at.url + path, { headers: { ...headers, ...(token && bearer(token)) } })
    const text = await response.text()
    return { status: response.status, headers: response.headers, json: response.ok ? JSON.parse(text) : {} }
  }

  test('a valid token is accepted, and the backend gets its identity', async () => {
    const session = await customer.session({ subject: 'ann', audience: 'shop', claims: { plan: 'gold' } })
    const { status, json } = await get('/orders/7?page=2', session.access_token)
    expect(status).toBe(200)
    expect(json).toEqual({
      method: 'GET',
      path: '/orders/7',
      identity: {
        'x-auth-customer': customer.id,
        'x-auth-subject': 'ann',
        'x-auth-scope': 'read write',
        'x-auth-audience': 'shop',
        'x-auth-session': session.session_id,
        'x-auth-token-id': expect.stringMatching(/^\S{16,}$/),
        'x-auth-expires': expect.stringMatching(/^\d{10}$/),
        'x-auth-claims': Buffer.from('{"plan":"gold"}').toString('base64url'),
      },
    })
  })

  test('a missing or bad token is 401 with the challenge', async () => {
    const without = await get('/')
    expect(without.status).toBe(401)
    expect(without.headers.get('www-authenticate')).toMatch(/^Bearer/)
    expect(without.headers.get('www-authenticate')).not.toContain('error=')
    for (const token of ['nonsense', 'a.b.c', customer.refreshToken]) {
      const bad = await get('/', token)
      expect(bad.status).toBe(401)
      expect(bad.headers.get('www-authenticate')).toContain('error="invalid_token"')
    }
  })

  test('a token without the scope is 403 with a challenge that names the scope', async () => {
    const token = await issue({ scope: 'read' })
    expect((await get('/reading/', token)).status).toBe(200)
    const { status, headers } = await get('/writing/', token)
    expect(status).toBe(403)
    expect(headers.get('www-authenticate')).toContain('error="insufficient_scope"')
    expect(headers.get('www-authenticate')).toContain('scope="read write"')
    expect((await get('/writing/', await issue({ scope: 'read write' }))).status).toBe(200)
  })

  test('H41 CVE-2026-34457 no identity header of the client reaches the backend, not even if ours is empty', async () => {
    const { status, json } = await get('/', await issue({ scope: 'read' }), FORGED)
    expect(status).toBe(200)
    expect(JSON.stringify(json)).not.toContain('forged')
    expect(json.identity['x-auth-customer']).toBe(customer.id)
    // Without a session and custom claims: Assay sends these headers empty, and nginx omits empty ones.
    expect(json.identity).not.toHaveProperty('x-auth-session')
    expect(json.identity).not.toHaveProperty('x-auth-claims')
    expect((await get('/open/', undefined, FORGED)).json.identity).toEqual({})
  })

  test('200 requests, allowed and denied, use one connection to Assay', async () => {
    const tokens = [await issue({ scope: 'read' }), 'nonsense']
    const statuses = new Set<number>()
    for (let i = 0; i < 200; i++) statuses.add((await get(i % 3 ? '/' : '/writing/', tokens[i % 2]!)).status)
    expect([...statuses].sort()).toEqual([200, 401, 403])
    expect(server.accepted()).toBe(1)
  })

  test('a token revoked on another replica is refused within N', async () => {
    const other = await world.replica()
    for (let trial = 0; trial < 10; trial++) {
      const token = await issue({ scope: 'read' })
      expect((await get('/', token)).status).toBe(200)
      const revoked = await other.postForm('/revoke', { token }, bearer(customer.apiKey))
      expect(revoked.status).toBe(200)
      const late = performance.now() + world.config.maxStaleness
      for (let status = 200, sent = 0; status !== 401; ) {
        sent = performance.now()
        ;({ status } = await get('/', token))
        expect([200, 401]).toContain(status)
        if (status === 200) expect(sent).toBeLessThan(late)
      }
      expect((await get('/', token)).status).toBe(401)
    }
  })

  describe('while the database is unreachable', () => {
    let link: Link
    let cutOff: Running

    beforeEach(async () => {
      link = await openLink(world.url!)
      const { issuer } = world.config
      cutOff = await startAssay({ ...SETTINGS, ADMIN_TOKEN, ISSUER: issuer, DATABASE_URL: link.url })
      onTestFinished(async () => {
        await cutOff.stop('SIGKILL')
        link.close()
      })
    })

    test('H29 the answer is 503 with Retry-After, never a denial, until it is back', async () => {
      const alone = await start([cutOff.port])
      const token = await issue({ scope: 'read' })
      const answers: { sent: number; status: number; retryAfter: string | null }[] = []
      const status = async () => {
        const sent = performance.now()
        const { status, headers } = await get('/', token, {}, alone)
        answers.push({ sent, status, retryAfter: headers.get('retry-after') })
        return status
      }
      expect(await status()).toBe(200)
      link.refuse()
      const late = performance.now() + world.config.maxStaleness
      await expect.poll(status, { interval: 10 }).toBe(503)
      const away = answers.splice(0)
      await link.fair()
      await expect.poll(status, { interval: 10 }).toBe(200)
      expect(away.filter(({ status, sent }) => status === 200 && sent >= late)).toEqual([])
      const others = [...away, ...answers].filter(({ status }) => status !== 200)
      expect(new Set(others.map(({ status, retryAfter }) => `${status} ${retryAfter}`))).toEqual(
        new Set(['503 1']),
      )
    })

    test('nginx skips a replica that is cut off', async () => {
      const both = await start([cutOff.port, server.port])
      const token = await issue({ scope: 'read' })
      link.refuse()
      const asked = async () => (await fetch(`${cutOff.url}/verify`, { headers: bearer(token) })).status
      const answered = async () => (await get('/', token, {}, both)).status
      while ((await asked()) !== 503) expect(await answered()).toBe(200)
      for (let i = 0; i < 50; i++) expect(await answered()).toBe(200)
    })
  })
})
