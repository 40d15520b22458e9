import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Settings } from './process.ts'

const SDK = join(import.meta.dirname, '../../deploy/opentelemetry/traces.mjs')

/** As OTLP has it, in JSON. */
export interface Sent {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  attributes: { key: string; value: object }[]
}

/** Whom an SDK tells. `silent`: it takes what it is sent and never answers. Closed when the test ends. */
export async function startCollector({ silent = false } = {}) {
  const spans: Sent[] = []
  const resources: Sent['attributes'][] = []
  let requests = 0
  const server = createServer(async (request, response) => {
    requests++
    if (silent) return
    const { resourceSpans } = JSON.parse(Buffer.concat(await request.toArray()).toString())
    for (const { resource, scopeSpans } of resourceSpans) {
      resources.push(resource.attributes)
      for (const scope of scopeSpans) spans.push(...scope.spans)
    }
    response.setHeader('Content-Type', 'application/json').end('{}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  /** The one flag, and where to. */
  const settings: Settings = {
    NODE_OPTIONS: `--import ${SDK}`,
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
  }
  /** Of the processes that told. */
  const pids = () => {
    const found = resources.flatMap(attributes => attributes.filter(({ key }) => key === 'process.pid'))
    return [...new Set(found.map(({ value }) => Number((value as { intValue: number }).intValue)))]
  }
  return { settings, spans, resources, pids, requests: () => requests }
}
