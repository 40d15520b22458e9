import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { findCaddy, startCaddy } from '../support/caddy.ts'
import { startDns } from '../support/dns.ts'
import { type Gateway, withAddresses } from '../support/gateway.ts'
import { findHaproxy, startHaproxy } from '../support/haproxy.ts'
import { findNginx, type Options, SHIPPED, startNginx } from '../support/nginx.ts'
import { freePort } from '../support/port.ts'
import { startAssay } from '../support/process.ts'
import { ADMIN_TOKEN, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Assay has a name whose address changes, as that of a recreated container does. */

const MASTER_KEYS = `m1:${randomBytes(32).toString('base64')}`

/** Assay's port at each of its addresses, the port of the DNS server, and that of the backend. */
interface Ports {
  assay: number
  dns: number
  backend: number
}

const read = (file: string) => readFile(join(SHIPPED, file), 'utf8')

async function relayed(ports: Ports, more: Partial<Options> = {}) {
  const upstream = withAddresses(await read('relay.conf'), {
    '127.0.0.1:3003': `127.0.0.1:${await freePort()}`,
    'resolver 127.0.0.11 ': `resolver 127.0.0.1:${ports.dns} `,
    'assay:3001': `assay.test:${ports.assay}`,
  })
  return startNginx({ assay: [], backend: ports.backend, upstream, ...more })
}

/** upstream.conf with the lines from its comment in place of the first one. */
async function resolved(ports: Ports) {
  const upstream = (await read('upstream.conf'))
    .replace('    server 127.0.0.1:3001;\n', '')
    .replace(/^ {4}# {5}(zone|resolver|server assay)/gm, '    $1')
  const edited = withAddresses(upstream, {
    'resolver 127.0.0.11 ': `resolver 127.0.0.1:${ports.dns} `,
    'server assay:3001 resolve': `server assay.test:${ports.assay} resolve`,
  })
  return startNginx({ assay: [], backend: ports.backend, upstream: edited })
}

function caddy({ assay, dns, backend }: Ports) {
  const named = { 'to 127.0.0.1:3001': `to assay.test:${assay}` }
  const asking = { 'transport http {': `transport http {\nresolvers udp/127.0.0.1:${dns}` }
  return startCaddy({ assay: [], backend }, asking, { ...named, ...asking })
}

/** The lines from the comment in haproxy.cfg, with another DNS server. */
function haproxy({ assay, dns, backend }: Ports) {
  const named = `server assay1 assay.test:${assay} resolvers system init-addr last,libc,none`
  const section = `resolvers system\n  nameserver dns 127.0.0.1:${dns}\n  hold valid 1s\n`
  const edits = { 'server assay1 127.0.0.1:3001': named, 'listen assay\n': `${section}listen assay\n` }
  return startHaproxy({ assay: [], backend }, {}, edits)
}

/** `resolve` was added in nginx 1.27.3. */
function resolves() {
  const path = findNginx()
  const [, minor = 0, patch = 0] = path
    ? /1\.(\d+)\.(\d+)/.exec(spawnSync(path, ['-v'], { encoding: 'utf8' }).stderr)!
    : []
  return Number(minor) * 1_000 + Number(patch) >= 27_003
}

const GATEWAYS: [string, (ports: Ports) => Promise<Gateway>][] = [
  ...(findNginx()
    ? [['nginx with relay.conf', (ports: Ports) => relayed(ports)] as [string, typeof resolved]]
    : []),
  ...(resolves() ? [['nginx with `resolve`', resolved] as [string, typeof resolved]] : []),
  ...(findCaddy() ? [['Caddy', caddy] as [string, typeof caddy]] : []),
  ...(findHaproxy() ? [['HAProxy', haproxy] as [string, typeof haproxy]] : []),
]

describe.skipIf(GATEWAYS.length === 0)('a gateway that resolves Assay by name', () => {
  let world: World
  let replica: Replica
  let customer: Customer

  beforeAll(async () => {
    world = await makeWorld({ MASTER_KEYS })
    replica = await world.replica()
    customer = await replica.signUp()
  })
  afterAll(() => world?.stop())

  async function assayAt(host: string, port: number) {
    const own = { MASTER_KEYS, ADMIN_TOKEN, DATABASE_URL: world.url!, ISSUER: world.config.issuer }
    const started = await startAssay({ ...own, HOST: host, PORT: String(port) })
    onTestFinished(async () => void (await started.stop('SIGKILL')))
    return started
  }

  async function parts() {
    const dns = await startDns('127.0.0.2')
    const backend = await startListener()
    for (const { stop } of [dns, backend]) onTestFinished(stop)
    return { dns, backend, ports: { assay: await freePort(), dns: dns.port, backend: backend.port } }
  }

  const tokenFor = async (scope: string) => (await customer.issue({ scope })).json.access_token as string

  async function get(url: string, token?: string) {
    const { status, headers } = await fetch(url, { headers: token === undefined ? {} : bearer(token) })
    return status === 503 ? `503, again after ${headers.get('retry-after')}` : String(status)
  }

  test.each(GATEWAYS)(
    '%s follows it to a new address without a reload, and answers 503 until then',
    async (_, start) => {
      const { dns, backend, ports } = await parts()
      const first = await assayAt('127.0.0.2', ports.assay)
      const gateway = await start(ports)
      onTestFinished(gateway.stop)
      const token = await tokenFor('read')
      const seen = new Set<string>()
      const answer = async () => {
        const status = await get(`${gateway.url}/`, token)
        seen.add(status)
        return status
      }
      await expect.poll(answer).toBe('200')
      expect(await get(`${gateway.url}/`)).toBe('401')

      await first.stop('SIGKILL')
      await expect.poll(answer).toBe('503, again after 1')
      dns.move('127.0.0.3')
      await assayAt('127.0.0.3', ports.assay)
      seen.clear()
      await expect.poll(answer).toBe('200')
      expect([...seen].filter(status => !['200', '503, again after 1'].includes(status))).toEqual([])
      expect(await get(`${gateway.url}/`)).toBe('401')
      expect(backend.heard.every(({ headers }) => headers['x-auth-customer'] === customer.id)).toBe(true)
    },
  )

  test.each(GATEWAYS)(
    '%s answers 503 while the name does not exist, and forwards nothing to the backend',
    async (_, start) => {
      const { dns, backend, ports } = await parts()
      dns.move()
      const gateway = await start(ports)
      onTestFinished(gateway.stop)
      for (let i = 0; i < 3; i++)
        expect(await get(`${gateway.url}/`, await tokenFor('read'))).toBe('503, again after 1')
      expect(backend.heard).toEqual([])
    },
  )

  test.skipIf(!findNginx())(
    'relay.conf passes rules, requests for Assay itself and their headers on',
    async () => {
      const { ports } = await parts()
      await assayAt('127.0.0.2', ports.assay)
      const locations =
        'location /api/ { proxy_set_header X-Request-Id from-client; proxy_pass http://assay; }'
      const gateway = await relayed(ports, { locations })
      onTestFinished(gateway.stop)
      expect(await get(`${gateway.url}/writing/`, await tokenFor('read'))).toBe('403')
      expect(await get(`${gateway.url}/writing/`, await tokenFor('write'))).toBe('403')
      expect(await get(`${gateway.url}/writing/`, await tokenFor('read write'))).toBe('200')
      const me = await fetch(`${gateway.url}/api/auth/me`, { headers: bearer(customer.accessToken) })
      expect([me.status, me.headers.get('x-request-id')]).toEqual([200, 'from-client'])
    },
  )

  test.skipIf(!findNginx())('relay.conf inherits no setting that would change Assay’s answers', async () => {
    const { backend, ports } = await parts()
    await assayAt('127.0.0.2', ports.assay)
    const http = `
      error_page 401 403 404 502 503 =200 /sorry; proxy_intercept_errors on;
      proxy_cache_path cache keys_zone=all:1m; proxy_cache all; proxy_cache_valid any 1h;
      proxy_ignore_headers Cache-Control Expires Vary;
      auth_request /yes; auth_basic closed; auth_basic_user_file /dev/null; deny all;`
    // Settings of a site itself: only the relay must not depend on them.
    const server = 'allow all; auth_basic off; error_page 599 @none; location @none { return 503; }'
    const gateway = await relayed(ports, { http, server })
    onTestFinished(gateway.stop)
    const token = await tokenFor('read')
    for (let i = 0; i < 2; i++) {
      expect(await get(`${gateway.url}/`, token)).toBe('200')
      expect(await get(`${gateway.url}/`, 'nonsense')).toBe('401')
      expect(await get(`${gateway.url}/`)).toBe('401')
      expect(await get(`${gateway.url}/writing/`, token)).toBe('403')
    }
    expect(backend.heard.length).toBeGreaterThan(0)
  })

  test.skipIf(!findNginx())(
    'with relay.conf an error page in http {} does not turn a refusal into a 200',
    async () => {
      const { dns, backend, ports } = await parts()
      const failing = await startListener((request, response) => {
        if (request.url?.startsWith('/verify')) response.destroy()
        else response.writeHead(404).end()
      })
      onTestFinished(failing.stop)
      dns.move('127.0.0.1')
      const http = 'error_page 502 504 =200 /sorry;'
      const gateway = await relayed({ ...ports, assay: failing.port }, { http })
      onTestFinished(gateway.stop)
      expect(await get(`${gateway.url}/`, 'nonsense')).toBe('503, again after 1')
      expect(failing.heard.map(({ path }) => path)).toContain('/verify')
      expect(backend.heard).toEqual([])
    },
  )
})
