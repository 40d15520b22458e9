import { randomBytes } from 'node:crypto'
import { context, propagation, trace } from '@opentelemetry/api'
import { NodeSDK, type NodeSDKConfiguration } from '@opentelemetry/sdk-node'
import { afterAll } from 'vitest'

type Processor = NonNullable<NodeSDKConfiguration['spanProcessors']>[number]
type Span = Parameters<Processor['onEnd']>[0]

/**
 * Runs an SDK in this process as deploy/opentelemetry/traces.mjs does. Import it before the first replica is created. It
 * is unregistered at the end of the file, because the next file runs in the same process.
 */
export function loadSdk() {
  const ended: Span[] = []
  const processor: Processor = {
    onStart() {},
    onEnd: span => void ended.push(span),
    forceFlush: async () => {},
    shutdown: async () => {},
  }
  new NodeSDK({
    instrumentations: [],
    metricReaders: [],
    logRecordProcessors: [],
    autoDetectResources: false,
    spanProcessors: [processor],
  }).start()
  afterAll(() => {
    for (const api of [trace, context, propagation]) api.disable()
  })
  return {
    ended,
    /** The exported data of the spans, as text. */
    text: () =>
      JSON.stringify(
        ended.map(({ name, attributes, status, events, links }) => [name, attributes, status, events, links]),
      ),
    /** The spans of a trace, in the order in which they ended. */
    of: ({ traceId }: Trace) => ended.filter(span => span.spanContext().traceId === traceId),
    /** The path of span names from the root, in the order in which they ended; the caller is `^`. */
    told: (trace: Trace) => pathsOf(ended, trace),
  }
}

/** The traceparent of a caller. */
export interface Trace {
  traceId: string
  spanId: string
  headers: { traceparent: string }
}

export function newTrace(sampled = true): Trace {
  const [traceId, spanId] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')]
  return { traceId, spanId, headers: { traceparent: `00-${traceId}-${spanId}-0${sampled ? 1 : 0}` } }
}

function pathsOf(spans: Span[], { traceId, spanId }: Trace): string[] {
  const own = spans.filter(span => span.spanContext().traceId === traceId)
  const pathOf = (span: Span): string => {
    const parentId = span.parentSpanContext?.spanId
    const parent = own.find(each => each.spanContext().spanId === parentId)
    return `${parent ? pathOf(parent) : parentId === spanId ? '^' : '?'} > ${span.name}`
  }
  return own.map(pathOf)
}
