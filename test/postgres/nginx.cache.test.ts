import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { findNginx, protect, SHIPPED, startNginx } from '../support/nginx.ts'
import { exchange } from '../support/raw.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** How much staleness deploy/nginx/cached.conf claims to add (ms). */
const ADDED = 2_000

const CACHE = 'proxy_cache_path cache keys_zone=assay:1m inactive=10s use_temp_path=off;'

/** Some of these rules and headers can be joined so that two different pairs give the same text. `T` is the token. */
const RULES = [
  'scope_any=admin',
  'scope_any=admin us',
  'scope_any=admin user',
  'scope_any=admin user Bearer',
  'scope_any=user /_assay/cached/scope_any=admin',
  '',
]
const HEADERS = [
  'Bearer T',
  'user Bearer T',
  'user Bearer Bearer T',
  'Bearer Bearer T',
  'erBearer T',
  'Bearer T /_assay/cached/scope_any=user',
  'Bearer T /_assay/cached/scope_any=admin',
  '/_assay/cached/scope_any=admin Bearer T',
]

const ruled = (kind: string) =>
  RULES.map((rule, index) => `location /${kind}/${index}/ { ${protect(`/_assay/${kind}/${rule}`)} }`).join(
    '\n',
  )

/** cached.conf with the changes that its comment describes for TOKEN_COOKIE=session. */
async function withCookie() {
  const text = await readFile(join(SHIPPED, 'cached.conf'), 'utf8')
  const lines = text
    .replace(/^ *proxy_cache_key .*\n/m, '')
    .replace(/^( *)# (proxy_cache_key .*|proxy_set_header Cookie .*)$/gm, '$1$2')
  expect(lines.match(/^ *proxy_cache_key/gm)).toHaveLength(1)
  expect(lines).toMatch(/^ *proxy_set_header Cookie/m)
  return lines
}

describe.skipIf(!findNginx())('nginx with the optional cache (skipped where there is none)', () => {
  let world: World
  let assay: Replica
  let customer: Customer

  beforeAll(async () => {
    world = await makeWorld()
    assay = await world.replica()
    customer = await assay.signUp()
  })
  afterAll(() => world?.stop())

  test('caches an accepted answer for this token and this rule, and no longer than documented', async () => {
    const { port } = await assay.serve()
    const backend = await startListener()
    onTestFinished(backend.stop)
    const nginx = await startNginx({
      assay: [port],
      backend: backend.port,
      http: CACHE,
      server: 'include assay/cached.conf;',
      locations: `
        location /cached/ { ${protect('/_assay/cached/')} }
        location /cached/reading/ { ${protect('/_assay/cached/scope=read')} }
        location /cached/writing/ { ${protect('/_assay/cached/scope=write')} }`,
    })
    onTestFinished(nginx.stop)
    const get = async (path: string, token?: string) => {
      const response = await fetch(nginx.url + path, { headers: token === undefined ? {} : bearer(token) })
      await response.arrayBuffer()
      return response.status
    }
    const issue = async (subject: string) =>
      (await customer.issue({ subject, scope: 'read' })).json.access_token as string
    for (let trial = 0; trial < 3; trial++) {
      const [token, other] = [await issue('ann'), await issue('bob')]
      expect(await get('/cached/reading/', token)).toBe(200)
      expect(await get('/cached/reading/', other)).toBe(200)
      const heard = backend.heard.slice(-2).map(({ headers }) => headers['x-auth-subject'])
      expect(heard).toEqual(['ann', 'bob'])
      expect(await get('/cached/writing/', token)).toBe(403)
      expect(await get('/cached/reading/')).toBe(401)
      expect((await assay.postForm('/revoke?wait=all', { token }, bearer(customer.apiKey))).status).toBe(200)
      const late = performance.now() + ADDED
      for (let status = 200; status !== 401; ) {
        const sent = performance.now()
        status = await get('/cached/reading/', token)
        expect([200, 401]).toContain(status)
        if (status === 200) expect(sent).toBeLessThan(late)
      }
      expect(await get('/reading/', token)).toBe(401)
      expect(await get('/cached/reading/', other)).toBe(200)
    }
    expect(await nginx.errors()).not.toMatch(/\[(warn|error|emerg)\]/)
  })

  async function startCached(replica: Replica, cached: string) {
    const { port } = await replica.serve()
    const backend = await startListener()
    onTestFinished(backend.stop)
    const nginx = await startNginx({
      assay: [port],
      backend: backend.port,
      http: CACHE,
      server: cached,
      locations: `${ruled('cached')} ${ruled('verify')}`,
    })
    onTestFinished(nginx.stop)
    return async (path: string, headers: Record<string, string>) => {
      const raw = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
      const bytes = `GET ${path} HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n${raw.join('')}\r\n`
      return (await exchange(nginx.port, bytes)).statuses()[0]
    }
  }

  test('H59 answers for one rule and one header only, wherever the boundary between them is', async () => {
    const get = await startCached(assay, 'include assay/cached.conf;')
    const token = (await customer.issue({ scope: 'user' })).json.access_token as string
    const pairs = RULES.flatMap((_, rule) =>
      HEADERS.map(header => ({ rule, headers: { Authorization: header.replace('T', token) } })),
    )
    const asked = await Promise.all(
      pairs.map(async pair => ({ ...pair, status: await get(`/verify/${pair.rule}/`, pair.headers) })),
    )
    expect(new Set(asked.map(({ status }) => status))).toEqual(new Set([200, 401, 403]))
    const allowed = asked.filter(({ status }) => status === 200)
    for (const pair of asked) {
      for (const { rule, headers } of allowed) expect(await get(`/cached/${rule}/`, headers)).toBe(200)
      expect({ ...pair, status: await get(`/cached/${pair.rule}/`, pair.headers) }).toEqual(pair)
    }
  })

  test('H59 with the lines for a cookie, no client gets the answer for another’s cookie', async () => {
    const replica = await world.replica({ TOKEN_COOKIE: 'session' })
    const get = await startCached(replica, await withCookie())
    const issue = async (scope: string) => (await customer.issue({ scope })).json.access_token as string
    const [user, other] = [await issue('user'), await issue('other')]
    const cookie = (token: string) => ({ Cookie: `session=${token}` })
    for (let i = 0; i < 3; i++) {
      expect(await get('/cached/2/', cookie(user))).toBe(200)
      expect(await get('/cached/2/', cookie(other))).toBe(403)
      expect(await get('/cached/2/', {})).toBe(401)
      expect(await get('/cached/2/', { Authorization: 'Bearer nonsense', ...cookie(user) })).toBe(401)
      expect(await get('/cached/0/', cookie(user))).toBe(403)
    }
  })
})
