import { describe, expect, onTestFinished, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { holdsTheEdge } from '../support/edge.ts'
import { findHaproxy, startHaproxy } from '../support/haproxy.ts'

holdsTheEdge('HAProxy', findHaproxy, addresses => startHaproxy(addresses))

describe.skipIf(!findHaproxy())('HAProxy continues with a request after an error in its Lua code', () => {
  test.each([
    ['before it asks', 'local answer = ', 'local answer = nothing.there or '],
    ['after it asked', 'local headers = answer.headers or {}', 'local headers = nothing.there'],
    ['when it says yes', "txn:set_var('txn.assay', 'yes')", 'nothing.there()'],
  ])('but if it fails %s, nothing reaches the backend', async (_, whole, broken) => {
    const assay = await startListener((_, response) =>
      response.writeHead(200, { 'X-Auth-Customer': 'c' }).end(),
    )
    const backend = await startListener()
    const { url, stop } = await startHaproxy(
      { assay: [assay.port], backend: backend.port },
      { [whole]: broken },
    )
    for (const end of [stop, assay.stop, backend.stop]) onTestFinished(end)
    const response = await fetch(url, { headers: { Authorization: 'Bearer t' } })
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('1')
    expect(backend.heard).toEqual([])
  })
})
