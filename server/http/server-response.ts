import { type IncomingMessage, type OutgoingHttpHeaders, ServerResponse } from 'node:http'

/** The most answers that are written together, so that the first does not wait long for the last. */
const MAX_CORKED = 32

const ended: (() => void)[] = []

function flush() {
  for (const end of ended.splice(0)) end()
}

export interface ResponseOptions {
  draining(): boolean
  /** Called when Node refuses to write a header, which is a bug of a route. */
  onInvalidHeader(error: unknown): void
  /** Called with each answer once it has been written; the system may not have accepted all of it yet. */
  onEnded(response: ServerResponse): void
}

/**
 * Writes the responses that are ready in one turn of the event loop together, at its end. Each write wakes
 * the receiver, but while a proxy is busy reading one response, further ones cost no wake-up. Without load
 * there is no delay. This more than doubles the throughput of a core (docs/performance.md).
 *
 * While draining, every response closes its connection, so that the client reconnects to another replica. A
 * response with an invalid header becomes an empty 500, because an error thrown to the adapter would end the
 * process.
 */
export function responseClass({ draining, onInvalidHeader, onEnded }: ResponseOptions) {
  return class Response<Request extends IncomingMessage> extends ServerResponse<Request> {
    #replaced = false

    // biome-ignore lint/suspicious/noExplicitAny: the arguments are passed through unchanged.
    override writeHead(status: number, ...rest: any[]): this {
      if (draining()) this.shouldKeepAlive = false
      try {
        return super.writeHead(status, ...rest)
      } catch (error) {
        onInvalidHeader(error)
        this.#replaced = true
        // Node keeps the reason phrase of the status that it was given first.
        this.statusMessage = ''
        return super.writeHead(500, { 'Content-Length': '0' } satisfies OutgoingHttpHeaders)
      }
    }

    // biome-ignore lint/suspicious/noExplicitAny: the arguments are passed through unchanged.
    override write(...args: any[]): boolean {
      return this.#replaced || super.write(args[0], ...args.slice(1))
    }

    // biome-ignore lint/suspicious/noExplicitAny: the arguments are passed through unchanged.
    override end(...args: any[]): this {
      const given = this.#replaced ? [] : args
      ended.push(() => {
        super.end(...given)
        onEnded(this)
      })
      if (ended.length === MAX_CORKED) flush()
      else if (ended.length === 1) setImmediate(flush)
      return this
    }
  }
}
