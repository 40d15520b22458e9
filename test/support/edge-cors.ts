import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { type Listener, startListener } from './backends.ts'
import type { Addresses, Gateway } from './gateway.ts'
import { freePort } from './port.ts'
import { exchange } from './raw.ts'
import { type Customer, makeWorld, type Replica, type World } from './world.ts'

/** What every gateway must guarantee for pages of other origins, with the one origin that its shipped files list. */

const LISTED = 'https://app.example.com'

/** Origins that are not listed. Some resemble the listed one, and one has a space at which a rule might split it. */
const UNLISTED = [
  'null',
  '*',
  'http://app.example.com',
  'https://app.example.com:8443',
  'https://app.example.com.evil.test',
  'https://evil.test/https://app.example.com',
  'https://evil-app.example.com',
  'https://APP.example.com',
  'https://app.example.com/',
  'https://app.example.com, https://evil.test',
  'https://evil.test, https://app.example.com',
  'x https://app.example.com',
]

const PATHS = ['/', '/orders/7?page=2', '/reports/', '/public/', '/api/keys']

const preflight = (origin: string, method = 'PUT', ...more: string[]) => [
  `Origin: ${origin}`,
  `Access-Control-Request-Method: ${method}`,
  'Access-Control-Request-Headers: authorization,content-type',
  ...more,
]

const items = (header: string | null) => (header ?? '').split(/, */).sort()

/** A backend that allows all origins, as many do, and gives every method the same answer. */
const permissive = () =>
  startListener((_, response) => {
    response
      .setHeader('Access-Control-Allow-Origin', '*')
      .setHeader('Access-Control-Allow-Credentials', 'true')
    response.setHeader('Access-Control-Expose-Headers', 'X-Secret').setHeader('Vary', 'Accept-Encoding')
    response.end('the data')
  })

export function holdsCors(
  name: string,
  isThere: () => string | undefined,
  start: (addresses: Addresses) => Promise<Gateway>,
) {
  describe.skipIf(!isThere())(`${name} and pages of another origin (skipped if not installed)`, () => {
    let world: World
    let assay: Replica
    let customer: Customer
    let server: Awaited<ReturnType<Replica['serve']>>
    let backend: Listener
    let gateway: Gateway
    let token: string

    beforeAll(async () => {
      world = await makeWorld()
      assay = await world.replica()
      customer = await assay.signUp()
    })
    afterAll(() => world?.stop())
    beforeEach(async () => {
      server = await assay.serve()
      backend = await permissive()
      onTestFinished(backend.stop)
      gateway = await gatewayTo(server.port)
      token = (await customer.issue({ subject: 'ann', scope: 'read' })).json.access_token
    })

    async function gatewayTo(port: number) {
      const started = await start({ assay: [port], backend: backend.port })
      onTestFinished(started.stop)
      return started
    }

    /** Sends the headers unchanged, which `fetch` would refuse, and returns the answer. */
    async function send(method: string, path: string, headers: string[], at = gateway) {
      const lines = [`${method} ${path} HTTP/1.1`, 'Host: gateway.test', 'Connection: close', ...headers]
      const [head = ''] = (await exchange(at.port, `${lines.join('\r\n')}\r\n\r\n`, 5_000))
        .text()
        .split('\r\n\r\n')
      const [first = '', ...rest] = head.split('\r\n')
      const pairs = rest.map(line => [
        line.slice(0, line.indexOf(':')),
        line.slice(line.indexOf(':') + 1).trim(),
      ])
      return { status: Number(first.split(' ')[1]), headers: new Headers(pairs as [string, string][]) }
    }

    test('the gateway answers a preflight of a listed origin and forwards nothing', async () => {
      const sockets = server.accepted()
      for (const path of PATHS) {
        const { status, headers } = await send('OPTIONS', path, preflight(LISTED))
        expect({ path, status }).toEqual({ path, status: 204 })
        expect(headers.get('access-control-allow-origin')).toBe(LISTED)
        expect(items(headers.get('access-control-allow-methods'))).toEqual([
          'DELETE',
          'GET',
          'HEAD',
          'PATCH',
          'POST',
          'PUT',
        ])
        expect(items(headers.get('access-control-allow-headers'))).toEqual(['Authorization', 'Content-Type'])
        expect(headers.get('access-control-max-age')).toBe('600')
        expect(items(headers.get('vary'))).toContain('Origin')
        expect(headers.has('access-control-allow-credentials')).toBe(false)
      }
      expect(backend.heard).toEqual([])
      // Only health checks.
      expect(server.accepted() - sockets).toBeLessThan(3)
    })

    test('a preflight with a token is not forwarded either', async () => {
      for (const sent of [token, 'nonsense']) {
        const headers = preflight(LISTED, 'GET', `Authorization: Bearer ${sent}`, 'X-Auth-Subject: forged')
        expect((await send('OPTIONS', '/reports/', headers)).status).toBe(204)
      }
      expect(backend.heard).toEqual([])
    })

    test('a preflight of any other origin is 401, like every request without a token', async () => {
      const two = ['Origin: https://evil.test', ...preflight(LISTED)]
      const others = [...UNLISTED.map(origin => preflight(origin)), preflight(LISTED).slice(1), two]
      for (const headers of others) {
        const answer = await send('OPTIONS', '/reports/', headers)
        expect({ headers, status: answer.status }).toEqual({ headers, status: 401 })
        expect(answer.headers.has('access-control-allow-origin')).toBe(false)
      }
      expect(backend.heard).toEqual([])
    })

    test('the gateway asks Assay about OPTIONS that is no preflight, and about other methods with preflight headers', async () => {
      const origin = [`Origin: ${LISTED}`]
      expect((await send('OPTIONS', '/', origin)).status).toBe(401)
      expect((await send('OPTIONS', '/', [...origin, 'Access-Control-Request-Method:'])).status).toBe(401)
      for (const method of ['GET', 'HEAD', 'POST', 'DELETE', 'options', 'OPTIONSX'])
        expect([400, 401, 405]).toContain((await send(method, '/', preflight(LISTED))).status)
      const override = preflight(LISTED, 'GET', 'X-HTTP-Method-Override: OPTIONS')
      expect((await send('GET', '/', override)).status).toBe(401)
      expect(backend.heard).toEqual([])
      const own = [...origin, `Authorization: Bearer ${token}`]
      expect((await send('OPTIONS', '/', own)).status).toBe(200)
      expect(backend.heard.map(({ headers }) => headers['x-auth-subject'])).toEqual(['ann'])
    })

    test('a page of a listed origin may read every answer, and the backend’s own CORS headers are ignored', async () => {
      const down = await gatewayTo(await freePort())
      const credential = `Authorization: Bearer ${token}`
      const answers = [
        { path: '/', sent: [credential], at: gateway, status: 200 },
        { path: '/public/', sent: [], at: gateway, status: 200 },
        { path: '/', sent: [], at: gateway, status: 401 },
        { path: '/reports/', sent: [credential], at: gateway, status: 403 },
        { path: '/api/nothing', sent: [], at: gateway, status: 404 },
        { path: '/', sent: [credential], at: down, status: 503 },
      ]
      for (const { path, sent, at, status } of answers) {
        const { headers, ...answer } = await send('GET', path, [`Origin: ${LISTED}`, ...sent], at)
        expect({ path, ...answer }).toEqual({ path, status })
        expect({ status, origin: headers.get('access-control-allow-origin') }).toEqual({
          status,
          origin: LISTED,
        })
        expect(items(headers.get('access-control-expose-headers'))).toEqual([
          'Retry-After',
          'WWW-Authenticate',
        ])
        expect(headers.has('access-control-allow-credentials')).toBe(false)
        if (status === 200) expect(items(headers.get('vary'))).toEqual(['Accept-Encoding', 'Origin'])
      }
    })

    test('a page of any other origin may read none', async () => {
      for (const origin of UNLISTED)
        for (const [path, sent] of [
          ['/', [`Authorization: Bearer ${token}`]],
          ['/public/', []],
          ['/reports/', []],
        ] as const) {
          const { headers } = await send('GET', path, [`Origin: ${origin}`, ...sent])
          expect(headers.has('access-control-allow-origin')).toBe(false)
          expect(headers.has('access-control-allow-credentials')).toBe(false)
        }
      const { headers } = await send('GET', '/public/', [])
      expect(headers.has('access-control-allow-origin')).toBe(false)
      expect(items(headers.get('vary'))).toContain('Origin')
    })
  })
}
