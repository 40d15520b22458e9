import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Settings } from './process.ts'

const SDK = join(import.meta.dirname, '../../deploy/opentelemetry/traces.mjs')

/** A span in OTLP's JSON encoding. */
export interface Sent {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  attributes: { key: string; value: object }[]
}

/** A collector for an SDK. `silent`: it accepts requests and never answers. Closed when the test ends. */
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
  /** The settings that load the SDK and send its spans to this collector. */
  const settings: Settings = {
    NODE_OPTIONS: `--import ${SDK}`,
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
  }
  /** The process ids that have reported. */
  const pids = () => {
    const found = resources.flatMap(attributes => attributes.filter(({ key }) => key === 'process.pid'))
    return [...new Set(found.map(({ value }) => Number((value as { intValue: number }).intValue)))]
  }
  return { settings, spans, resources, pids, requests: () => requests }
}
