import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { findNginx, protect, startNginx } from '../support/nginx.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** What deploy/nginx/cached.conf says that it adds to the staleness (ms). */
const ADDED = 2_000

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

  test('remembers a yes, for this token and this rule, and for no longer than it says', async () => {
    const { port } = await assay.serve()
    const backend = await startListener()
    onTestFinished(backend.stop)
    const nginx = await startNginx({
      assay: [port],
      backend: backend.port,
      http: 'proxy_cache_path cache keys_zone=assay:1m inactive=10s use_temp_path=off;',
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
})
