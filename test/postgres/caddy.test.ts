import { describe, expect, onTestFinished, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { findCaddy, startCaddy } from '../support/caddy.ts'
import { holdsTheEdge } from '../support/edge.ts'

holdsTheEdge('Caddy', findCaddy, addresses => startCaddy(addresses))

describe.skipIf(!findCaddy())('a rule in the Caddyfile', () => {
  /** What Assay is asked, and what the client is answered, where the Caddyfile has this instead of its own rule. */
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

  test('H56 whose quotes were forgotten denies, where only its first word would be asked', async () => {
    for (const rule of ['scope=read write', 'scope=read aud=x', 'scope=read "write"'])
      expect(await asked(rule)).toEqual({ status: 403, rules: [] })
    expect(await asked('"scope=read write"')).toEqual({ status: 200, rules: ['scope=read write'] })
  })

  test('H56 that is missing is none that Assay knows', async () => {
    const { rules } = await asked('')
    expect(rules).toEqual([expect.stringMatching(/./)])
  })
})
