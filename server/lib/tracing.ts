import { createRequire } from 'node:module'
import { setTimeout as pause } from 'node:timers/promises'
import type { Attributes, Context, ProxyTracerProvider, Span, SpanOptions, Tracer } from '@opentelemetry/api'
import { DatabaseError } from '../../db/errors.ts'
import type { Clock } from './clock.ts'
import { VERSION } from './version.ts'

/**
 * The only file that knows OpenTelemetry. Of its API the CommonJS build, which prom-client has loaded: the other would be
 * fifty modules more at each start.
 */
const api = createRequire(import.meta.url)('@opentelemetry/api') as typeof import('@opentelemetry/api')
const { context, propagation, trace, SpanKind, SpanStatusCode } = api

/** What is sent at a process's end may take so long (ms). */
const FLUSH_TIMEOUT_MS = 1_000

export interface TracedRequest {
  method: string
  /** As it was declared. */
  route: string
  headers: object
  /** Machines ask it all the time: told only where it asked another system, or failed. */
  quiet: boolean
}

/** Those of RFC 9110 9.3, and PATCH; any other is `_OTHER`, so that callers can't make up span names. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT', 'TRACE'])

/** A request under way. Its span is made once there is something to tell: most answers from memory have none. */
class RequestTrace {
  readonly #tracer: Tracer
  readonly #request: TracedRequest
  /** By the monotonic clock (ms). */
  readonly #began: number
  readonly #around = context.active()
  #told: { span: Span; within: Context } | undefined
  #ended = false

  constructor(tracer: Tracer, request: TracedRequest, began: number) {
    this.#tracer = tracer
    this.#request = request
    this.#began = began
  }

  /** A span of a part of it. None once it has been answered: what comes later is nobody's wait. */
  begin(name: string, options: SpanOptions): Span[] {
    return this.#ended ? [] : [this.#tracer.startSpan(name, options, this.#tell().within)]
  }

  end({ status, headers }: Response, at: number) {
    this.#ended = true
    if (this.#told === undefined && this.#request.quiet && status < 500) return
    const { span } = this.#tell()
    span.setAttribute('http.response.status_code', status)
    span.setAttribute('http.response.header.x-request-id', [headers.get('X-Request-Id')!])
    if (status >= 500) fail(span, String(status))
    span.end(at)
  }

  /** Part of the trace that is under way here, if something else of this process began one, or of the caller's (traceparent). */
  #tell() {
    if (this.#told) return this.#told
    const { method: given, route, headers } = this.#request
    const method = METHODS.has(given) ? given : '_OTHER'
    const attributes = { 'http.request.method': method, 'http.route': route }
    const options = { kind: SpanKind.SERVER, startTime: this.#began, attributes }
    const parent = trace.getSpan(this.#around) ? this.#around : propagation.extract(this.#around, headers)
    const name = `${method === '_OTHER' ? 'HTTP' : method} ${route}`
    const span = this.#tracer.startSpan(name, options, parent)
    this.#told = { span, within: trace.setSpan(parent, span) }
    return this.#told
  }
}

const SERVED = api.createContextKey('assay: requests that are served')
const NOBODY: readonly RequestTrace[] = []

/** Those that what runs now is done for: one, or all whose acts share a statement. Without an SDK nobody. */
export const served = () => (context.active().getValue(SERVED) ?? NOBODY) as readonly RequestTrace[]

export const serving = <Result>(requests: readonly RequestTrace[], run: () => Result): Result =>
  context.with(context.active().setValue(SERVED, requests), run)

/** A call of another system, told in the trace of each request that it is made for. */
export async function told<Result>(
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

/** Without the error's message, which is for the log. */
function fail(span: Span, type: string) {
  span.setAttribute('error.type', type)
  span.setStatus({ code: SpanStatusCode.ERROR })
}

const kindOf = (error: unknown) =>
  error instanceof DatabaseError ? error.sqlstate : (error as Error).constructor.name

/** Tells an SDK of requests, and of what they wait for. */
export class Tracing {
  readonly #tracer: Tracer
  readonly #clock: Pick<Clock, 'monotonic'>

  constructor(tracer: Tracer, clock: Pick<Clock, 'monotonic'>) {
    this.#tracer = tracer
    this.#clock = clock
  }

  /** `answer` doesn't throw. What it answers at once is not traced. */
  follow(traced: TracedRequest, answer: () => Response | Promise<Response>): Response | Promise<Response> {
    const request = new RequestTrace(this.#tracer, traced, this.#clock.monotonic())
    const response = serving([request], answer)
    if (!(response instanceof Promise)) return response
    return response.then(late => {
      request.end(late, this.#clock.monotonic())
      return late
    })
  }

  /** Sends what waits to be sent. The API has no word for it, SDKs have. */
  async flush(): Promise<void> {
    const sdk = provider().getDelegate() as { forceFlush?(): Promise<void> }
    await Promise.race([sdk.forceFlush?.(), pause(FLUSH_TIMEOUT_MS)]).catch(() => {}) // It has told whoever wants to know.
  }
}

/** Undefined: there is no SDK. It must be loaded before. */
export function tracingOfSdk(clock: Pick<Clock, 'monotonic'>): Tracing | undefined {
  const tracer = provider().getDelegateTracer('assay', VERSION)
  return tracer && new Tracing(tracer, clock)
}

/** The API's own, which hands on to the SDK's. */
const provider = () => trace.getTracerProvider() as ProxyTracerProvider
