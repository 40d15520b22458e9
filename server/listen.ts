import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { App } from './app.ts'
import type { Reply } from './http/call.ts'
import { GatheredResponse } from './http/response-corking.ts'
import { send } from './http/send.ts'
import type { Log } from './lib/logger.ts'

/** How long what is under way may take once listening has ended (ms): with a drain's pause and what follows, 10 s in all. */
const DRAIN_TIMEOUT_MS = 5_000

const WHY: Record<string, string> = {
  EADDRINUSE: 'another process listens there; set HOST or PORT, or stop the other process',
  EADDRNOTAVAIL: 'this machine has no such address; set HOST',
  ENOTFOUND: 'there is no such host; set HOST',
  EACCES: 'ports below 1024 need rights; set PORT',
}

/** HOST and PORT can't be had. */
export class ListenError extends Error {
  constructor({ host, port }: { host: string; port: number }, code: string | undefined) {
    super(`can't listen on ${host} port ${port}: ${WHY[code ?? ''] ?? `${code}; set HOST or PORT`}`)
  }
}

/** `draining` is asked at each request: from then on every answer tells its client to come back on another connection. */
export interface ListenOptions {
  draining(): boolean
  log: Log
}

/** Serves the app. Throws ListenError. */
export async function listen(app: App, at: { host: string; port: number }, { draining, log }: ListenOptions) {
  const underWay = new Set<ServerResponse>()

  function answerLater(request: IncomingMessage, response: ServerResponse, reply: Promise<Reply>) {
    underWay.add(response)
    response.once('close', () => underWay.delete(response))
    void reply.then(late => answer(request, response, late))
  }

  /** A reply that Node refuses to write is a bug of the route, which must not end the process. */
  function answer(request: IncomingMessage, response: ServerResponse, reply: Reply) {
    try {
      send(request, response, reply)
    } catch (error) {
      log.error({ requestId: reply.headers['X-Request-Id'], err: error }, 'a reply could not be written')
      // Node keeps the words of the status that it was given first.
      response.statusMessage = ''
      send(request, response, { status: 500, headers: { 'Content-Length': '0' }, body: '' })
    }
  }

  const server = createServer(OPTIONS, (request, response) => {
    if (draining()) response.shouldKeepAlive = false
    const reply = app.answer(request)
    if (reply instanceof Promise) answerLater(request, response, reply)
    else answer(request, response, reply)
  })
  // The audit and the limits need the client's address, which a connection that has been reset no longer has.
  server.on('connection', socket => socket.remoteAddress ?? socket.destroy())
  // Node drops what comes after the thousandth, in silence: a proxy's rule, or a second Authorization. Bytes are bound.
  server.maxHeadersCount = 0
  await new Promise<void>((resolve, reject) => {
    server.once('error', ({ code }: NodeJS.ErrnoException) => reject(new ListenError(at, code)))
    server.listen(at.port, at.host, resolve)
  })
  return {
    server,
    port: (server.address() as AddressInfo).port,
    close: (pause: number) => close(server, underWay, pause),
  }
}

/** Milliseconds. keepAlive is above nginx's 60 s for idle upstream connections, so that nginx closes first. */
const OPTIONS = {
  ServerResponse: GatheredResponse,
  // Of two Authorization headers Node would take the first, and what is behind us perhaps the other: joined, they are none.
  joinDuplicateHeaders: true,
  headersTimeout: 5_000,
  requestTimeout: 15_000,
  keepAliveTimeout: 75_000,
  // How often the first two are looked at.
  connectionsCheckingInterval: 1_000,
  // Bytes: what a browser's cookies and a proxy's headers come to, which Node would refuse with 431.
  maxHeaderSize: 64 * 1024,
}

/** Listens on for `pause`, then lets what is under way finish, and cuts off what takes too long. */
async function close(server: Server, underWay: Set<ServerResponse>, pause: number): Promise<void> {
  // What was asked before the drain is answered with `Connection: close` too, or its connection would be waited for.
  for (const response of underWay) response.shouldKeepAlive = false
  await new Promise(resolve => setTimeout(resolve, pause))
  const closed = new Promise(resolve => server.close(resolve))
  server.closeIdleConnections()
  const cut = setTimeout(() => server.closeAllConnections(), DRAIN_TIMEOUT_MS)
  await closed
  clearTimeout(cut)
}
