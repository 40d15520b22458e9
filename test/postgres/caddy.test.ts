import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { findCaddy, startCaddy } from '../support/caddy.ts'
import { holdsTheEdge } from '../support/edge.ts'
import { bearer, makeWorld } from '../support/world.ts'

holdsTheEdge('Caddy', findCaddy, addresses => startCaddy(addresses))

describe.skipIf(!findCaddy())('a rule in the Caddyfile', () => {
  /** The request that Assay gets and the client's answer when the Caddyfile contains this rule instead of its own. */
  async function asked(rule: string) {
    const assay = await startListener((_, response) =>
      response.writeHead(200, { 'X-Auth-Customer': 'c' }).end(),
    )
    const backend = await startListener()
    const addresses = { assay: [assay.port], backend: backend.port }
    const { url, stop } = await startCaddy(addresses, {
      'import assay "scope=reports"': `import assay ${rule}`,
    })
    for (const end of [stop, assay.stop, backend.stop]) onTestFinished(end)
    const { status } = await fetch(`${url}/reports/`, { headers: { Authorization: 'Bearer t' } })
    const questions = assay.heard.filter(({ path }) => path.startsWith('/verify'))
    return { status, rules: questions.map(({ headers }) => headers['x-assay-require']) }
  }

  test('H56 without quotes denies, where only its first word would be checked', async () => {
    for (const rule of ['scope=read write', 'scope=read aud=x', 'scope=read "write"'])
      expect(await asked(rule)).toEqual({ status: 403, rules: [] })
    expect(await asked('"scope=read write"')).toEqual({ status: 200, rules: ['scope=read write'] })
  })

  test('H56 without a value is sent as a rule that Assay does not know', async () => {
    const { rules } = await asked('')
    expect(rules).toEqual([expect.stringMatching(/./)])
  })
})

describe.skipIf(!findCaddy())('Caddy’s own forward_auth', () => {
  /** The statuses of these targets with a valid token when the Caddyfile sends this URI to Assay. */
  async function statuses(uri: string, targets: string[]) {
    const world = await makeWorld()
    onTestFinished(() => world.stop())
    const replica = await world.replica()
    const token = (await (await replica.signUp()).issue({ scope: 'orders:read' })).json.access_token as string
    const [assay, backend] = [await replica.serve(), await startListener()]
    onTestFinished(backend.stop)
    const asked = `forward_auth 127.0.0.1:${assay.port} {\nuri ${uri}\n}`
    const addresses = { assay: [assay.port], backend: backend.port }
    const { url, stop } = await startCaddy(addresses, { 'import assay ""': asked })
    onTestFinished(stop)
    const get = async (target: string) => (await fetch(url + target, { headers: bearer(token) })).status
    return Promise.all(targets.map(get))
  }

  test('H56 takes the client’s query for a rule, unless it is written as docs/gateways.md says', async () => {
    const page = await readFile(join(import.meta.dirname, '../../docs/gateways.md'), 'utf8')
    const [ruled, open, wrong] = [...page.matchAll(/`uri (\/verify[^`]*)`/g)].map(([, uri]) => uri!)
    const targets = ['/orders', '/orders?page=2', '/orders?scope=admin']
    expect(await statuses(ruled!, targets)).toEqual([200, 200, 200])
    expect(await statuses(open!, targets)).toEqual([200, 200, 200])
    expect(await statuses(wrong!, targets)).toEqual([200, 403, 403])
  })
})
