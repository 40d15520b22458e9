import { Agent, type IncomingMessage, request } from 'node:http'
import type { Ask } from '../plan.ts'

/** One connection, which sends one request after another. */
export class Caller {
  readonly port: number
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })

  constructor(port: number) {
    this.port = port
  }

  /** Resolves with the status, the body, and the milliseconds until its last byte. Rejects if the connection ends earlier. */
  async ask({ method, path, headers, body }: Ask): Promise<{ status: number; took: number; text: string }> {
    const began = performance.now()
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const length = body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }
    const target = { host: '127.0.0.1', port: this.port, agent: this.#agent }
    request({ ...target, path, method, headers: { ...headers, ...length } }, resolve)
      .on('error', reject)
      .end(body)
    const answer = await promise
    let text = ''
    for await (const part of answer.setEncoding('latin1')) text += part
    return { status: answer.statusCode!, took: performance.now() - began, text }
  }
}
