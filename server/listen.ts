import {
  createServer,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import type { App } from './app.ts'
import { Connections } from './http/connections.ts'
import { Refusals, type RefusalsOptions } from './http/refusals.ts'
import { responseClass } from './http/server-response.ts'
import { type Incoming, keepOriginalTarget } from './http/target.ts'
import { UnreadBodies } from './http/unread-body.ts'
import { SetupError } from './lib/errors.ts'

/** Time limit for requests in progress once listening has ended (ms). A drain takes at most 10 s in total. */
const DRAIN_TIMEOUT_MS = 5_000

const REASONS: Record<string, string> = {
  EADDRINUSE: 'another process is listening there; set HOST or PORT, or stop that process',
  EADDRNOTAVAIL: 'this machine has no such address; set HOST',
  ENOTFOUND: 'the host name does not exist; set HOST',
  EACCES: 'ports below 1024 need special privileges; set PORT',
}

/** The server can't listen on HOST and PORT. */
export class ListenError extends SetupError {
  constructor({ host, port }: { host: string; port: number }, code: string | undefined) {
    super(`can't listen on ${host} port ${port}: ${REASONS[code ?? ''] ?? `${code}; set HOST or PORT`}`)
  }
}

/** `draining` is called for each response. While it returns true, each response closes its connection. */
export interface ListenOptions extends RefusalsOptions {
  draining(): boolean
}

/** Serves the app. Throws ListenError. */
export async function listen(
  { fetch }: Pick<App, 'fetch'>,
  at: { host: string; port: number },
  { draining, clock, log, metrics }: ListenOptions,
) {
  const refusals = new Refusals({ clock, log, metrics })
  const onInvalidHeader = (err: unknown) => log.error({ err }, 'a response could not be written')
  const connections = new Connections({ clock, log })
  const bodies = new UnreadBodies()
  const onEnded = (response: ServerResponse) => connections.ended(response)
  const server = createAdaptorServer({
    fetch: refusing(fetch, refusals),
    createServer: createServerInTurn as typeof createServer,
    autoCleanupIncoming: false,
    serverOptions: {
      ...SERVER_OPTIONS,
      ServerResponse: responseClass({ draining, onInvalidHeader, onEnded }),
    },
  }) as Server
  server.prependListener('request', (incoming, response) => {
    keepOriginalTarget(incoming)
    bodies.watch(incoming, response)
  })
  // RFC 9110 10.1.1 lets a server ignore expectations that it does not know. Node would answer 417, which /verify never does.
  server.on('checkExpectation', (incoming, response) => server.emit('request', incoming, response))
  server.on('clientError', (error, socket) => refusals.unreadable(error, socket))
  connections.watch(server)
  // By default Node silently drops headers after the thousandth, for example a proxy's rule or a second Authorization.
  // maxHeaderSize still limits their size.
  server.maxHeadersCount = 0
  await new Promise<void>((resolve, reject) => {
    server.once('error', ({ code }: NodeJS.ErrnoException) => reject(new ListenError(at, code)))
    server.listen(at.port, at.host, resolve)
  })
  return {
    server,
    connections,
    port: (server.address() as AddressInfo).port,
    close: (pause: number) => close(server, pause),
  }
}

/**
 * Answers the requests of a connection one after another: a response gets its connection once the system has accepted the
 * previous response. Otherwise a client that sends twenty requests and reads nothing makes the server write twenty answers.
 */
const createServerInTurn = (options: ServerOptions, answer: RequestListener) =>
  createServer(options, (incoming, response) => {
    if (response.socket !== null) return answer(incoming, response)
    response.once('socket', () => answer(incoming, response))
  })

/**
 * Refuses a request with two Host headers, which Node has joined by a comma, and a request of a connection that `Connections` has
 * closed, because Node continues with the requests that it has already read.
 */
const refusing =
  (fetch: App['fetch'], refusals: Refusals): App['fetch'] =>
  (request, env, context) => {
    const { originalHost, socket } = (env as { incoming: Incoming }).incoming
    if (socket.destroyed) return new Response(null, { status: 503, headers: { 'Content-Length': '0' } })
    return originalHost?.includes(',') ? refusals.secondHost() : fetch(request, env, context)
  }

/** Milliseconds. keepAlive is above nginx's 60 s for idle upstream connections, so that nginx closes first. */
const SERVER_OPTIONS = {
  // Node keeps the first of two Authorization headers, a backend may keep the second. Joined, they are no
  // valid token.
  joinDuplicateHeaders: true,
  headersTimeout: 5_000,
  requestTimeout: 15_000,
  keepAliveTimeout: 75_000,
  // The interval at which headersTimeout and requestTimeout are checked.
  connectionsCheckingInterval: 1_000,
  // Bytes. A browser's cookies and a proxy's headers can exceed Node's default, which would answer 431.
  maxHeaderSize: 64 * 1024,
}

/**
 * Keeps listening for `pause` ms, lets requests in progress finish, and cuts off those that take too long.
 */
async function close(server: Server, pause: number): Promise<void> {
  await new Promise(resolve => setTimeout(resolve, pause))
  const closed = new Promise(resolve => server.close(resolve))
  server.closeIdleConnections()
  const cut = setTimeout(() => server.closeAllConnections(), DRAIN_TIMEOUT_MS)
  await closed
  clearTimeout(cut)
}
