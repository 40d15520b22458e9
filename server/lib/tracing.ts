import { createRequire } from 'node:module'
import { setTimeout as pause } from 'node:timers/promises'
import type { Attributes, Context, ProxyTracerProvider, Span, SpanOptions, Tracer } from '@opentelemetry/api'
import { DatabaseError } from '../../db/errors.ts'
import type { Clock } from './clock.ts'
import { VERSION } from './version.ts'

/**
 * The only file that uses OpenTelemetry. It loads the CommonJS build of the API, which prom-client has
 * already loaded: the other build would load fifty more modules at each start.
 */
const api = createRequire(import.meta.url)('@opentelemetry/api') as typeof import('@opentelemetry/api')
const { context, propagation, trace, SpanKind, SpanStatusCode } = api

/** The timeout for sending the remaining spans at shutdown (ms). */
const FLUSH_TIMEOUT_MS = 1_000

export interface TracedRequest {
  method: string
  /** The route pattern, not the path. */
  route: string
  headers: object
  /** Machines call it constantly, so it is traced only if it called another system or failed. */
  quiet: boolean
}

/**
 * The methods of RFC 9110 9.3, and PATCH. Others become `_OTHER`, so that callers can't make up span names.
 */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT', 'TRACE'])

/**
 * A request in progress. Its span is created only when needed: most requests answered from memory have none.
 */
class RequestTrace {
  readonly #tracer: Tracer
  readonly #request: TracedRequest
  /** Start time by the monotonic clock (ms). */
  readonly #began: number
  readonly #around = context.active()
  #started: { span: Span; within: Context } | undefined
  #ended = false

  constructor(tracer: Tracer, request: TracedRequest, began: number) {
    this.#tracer = tracer
    this.#request = request
    this.#began = began
  }

  /** Starts a child span, or none after the response: the client doesn't wait for later work. */
  begin(name: string, options: SpanOptions): Span[] {
    return this.#ended ? [] : [this.#tracer.startSpan(name, options, this.#start().within)]
  }

  end({ status, headers }: Response, at: number) {
    this.#ended = true
    if (this.#started === undefined && this.#request.quiet && status < 500) return
    const { span } = this.#start()
    span.setAttribute('http.response.status_code', status)
    span.setAttribute('http.response.header.x-request-id', [headers.get('X-Request-Id')!])
    if (status >= 500) fail(span, String(status))
    span.end(at)
  }

  /** Creates the span, in the trace that is active in this process or else in the caller's (traceparent). */
  #start() {
    if (this.#started) return this.#started
    const { method: given, route, headers } = this.#request
    const method = METHODS.has(given) ? given : '_OTHER'
    const attributes = { 'http.request.method': method, 'http.route': route }
    const options = { kind: SpanKind.SERVER, startTime: this.#began, attributes }
    const parent = trace.getSpan(this.#around) ? this.#around : propagation.extract(this.#around, headers)
    const name = `${method === '_OTHER' ? 'HTTP' : method} ${route}`
    const span = this.#tracer.startSpan(name, options, parent)
    this.#started = { span, within: trace.setSpan(parent, span) }
    return this.#started
  }
}

const SERVED = api.createContextKey('assay: requests that are served')
const NOBODY: readonly RequestTrace[] = []

/**
 * The requests that the current async context is working for. More than one if their acts share a statement;
 * none without an SDK.
 */
export const served = () => (context.active().getValue(SERVED) ?? NOBODY) as readonly RequestTrace[]

export const serving = <Result>(requests: readonly RequestTrace[], run: () => Result): Result =>
  context.with(context.active().setValue(SERVED, requests), run)

/** Makes a call to another system, with a span in the trace of each request that it is made for. */
export async function traced<Result>(
  name: string,
  attributes: Attributes,
  call: () => Promise<Result>,
): Promise<Result> {
  const spans = served().flatMap(request => request.begin(name, { kind: SpanKind.CLIENT, attributes }))
  try {
    return await call()
  } catch (error) {
    for (const span of spans) fail(span, kindOf(error))
    throw error
  } finally {
    for (const span of spans) span.end()
  }
}

/** Marks a span as failed. The error's message is only for the log. */
function fail(span: Span, type: string) {
  span.setAttribute('error.type', type)
  span.setStatus({ code: SpanStatusCode.ERROR })
}

const kindOf = (error: unknown) =>
  error instanceof DatabaseError ? error.sqlstate : (error as Error).constructor.name

/** Creates spans for requests and for the calls that they wait for. */
export class Tracing {
  readonly #tracer: Tracer
  readonly #clock: Pick<Clock, 'monotonic'>

  constructor(tracer: Tracer, clock: Pick<Clock, 'monotonic'>) {
    this.#tracer = tracer
    this.#clock = clock
  }

  /** `answer` must not throw. Synchronous responses are not traced. */
  follow(traced: TracedRequest, answer: () => Response | Promise<Response>): Response | Promise<Response> {
    const request = new RequestTrace(this.#tracer, traced, this.#clock.monotonic())
    const response = serving([request], answer)
    if (!(response instanceof Promise)) return response
    return response.then(late => {
      request.end(late, this.#clock.monotonic())
      return late
    })
  }

  /** Sends the pending spans. The API has no method for this, but SDKs do. */
  async flush(): Promise<void> {
    const sdk = provider().getDelegate() as { forceFlush?(): Promise<void> }
    // The SDK reports its own errors.
    await Promise.race([sdk.forceFlush?.(), pause(FLUSH_TIMEOUT_MS)]).catch(() => {})
  }
}

/** Undefined if there is no SDK. The SDK must be loaded before this call. */
export function tracingOfSdk(clock: Pick<Clock, 'monotonic'>): Tracing | undefined {
  const tracer = provider().getDelegateTracer('assay', VERSION)
  return tracer && new Tracing(tracer, clock)
}

/** The API's proxy provider, which delegates to the SDK's. */
const provider = () => trace.getTracerProvider() as ProxyTracerProvider
