import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import type { App } from './app.ts'
import { GatheredResponse } from './gathered.ts'
import { challenge } from './http/errors.ts'
import { type Asked, queryOf, type Reply, type Verify } from './http/verify.ts'

/** How long what is under way may take once listening has ended (ms): with a drain's pause and what follows, 10 s in all. */
const FINISH = 5_000

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

/**
 * Serves the app. `draining` is asked at each request: from then on every answer tells its client to come back on another
 * connection.
 */
export async function listen(
  { app, verify }: { app: App; verify: Verify },
  at: { host: string; port: number },
  draining: () => boolean,
) {
  const answer = getRequestListener(app.fetch, { hostname: at.host })
  const answerWithBody = getRequestListener(app.fetch, { hostname: at.host, errorHandler: refuse })
  const underWay = new Set<ServerResponse>()
  const track = (response: ServerResponse) => {
    underWay.add(response)
    response.once('close', () => underWay.delete(response))
  }

  function answerVerify(request: IncomingMessage, response: ServerResponse, query: string) {
    const reply = verify(query, request.headers as Asked)
    if (!(reply instanceof Promise)) return send(response, reply)
    track(response)
    void reply.then(late => send(response, late))
  }

  const server = createServer(OPTIONS, (request, response) => {
    if (draining()) response.shouldKeepAlive = false
    const url = request.url ?? ''
    const found = VERIFY.exec(url)
    // Resolved like a URL, a client's `/..` would lead out of /verify, and to a 200.
    const subPath = found?.[1] === '/'
    if (found && !hasBody(request)) return answerVerify(request, response, subPath ? '' : queryOf(url))
    track(response)
    if (subPath) request.url = '/verify/*'
    return found ? answerWithBody(request, response) : answer(request, response)
  })
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

/** What follows /verify/ is a client's path, appended by a proxy: it says nothing, and is not looked at. */
const VERIFY = /^(?:https?:\/\/[^/?#]*)?\/verify([/?]|$)/

/** One that is left unread has to be got rid of, or its connection, with care: that is left to the app's own way. */
const hasBody = ({ headers }: IncomingMessage) =>
  headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined

const send = (response: ServerResponse, { status, headers }: Reply) =>
  response.writeHead(status, headers).end()

/** A request that is no URL (a backslash in the path, an odd Host): at /verify a 400 would be a 500 of nginx's. */
const refuse = () =>
  new Response(null, { status: 401, headers: { 'WWW-Authenticate': challenge(), 'Content-Length': '0' } })

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
  const cut = setTimeout(() => server.closeAllConnections(), FINISH)
  await closed
  clearTimeout(cut)
}
