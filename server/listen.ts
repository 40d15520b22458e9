import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import type { App } from './app.ts'

/** How long what is under way may take once listening has ended (ms), 10 s in all with the pause of a drain. */
const FINISH = 7_000

/** HOST and PORT can't be had. */
export class ListenError extends Error {
  constructor({ host, port }: { host: string; port: number }, code: string | undefined) {
    const why = code === 'EADDRINUSE' ? 'another process listens there' : code
    super(`can't listen on ${host} port ${port}: ${why}; set HOST or PORT, or stop the other process`)
  }
}

/**
 * Serves the app. `draining` is asked at each request: from then on every answer tells its client to come back on another
 * connection.
 */
export async function listen(app: App, at: { host: string; port: number }, draining: () => boolean) {
  const server = createAdaptorServer({ fetch: app.fetch, createServer, serverOptions: TIMEOUTS }) as Server
  server.prependListener('request', (_, response) => {
    if (draining()) response.setHeader('Connection', 'close')
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', ({ code }: NodeJS.ErrnoException) => reject(new ListenError(at, code)))
    server.listen(at.port, at.host, resolve)
  })
  return {
    server,
    port: (server.address() as AddressInfo).port,
    close: (pause: number) => close(server, pause),
  }
}

/** Milliseconds. keepAlive is above nginx's 60 s for idle upstream connections, so that nginx closes first. */
const TIMEOUTS = {
  headersTimeout: 5_000,
  requestTimeout: 15_000,
  keepAliveTimeout: 75_000,
  // How often the first two are looked at.
  connectionsCheckingInterval: 1_000,
}

/** Listens on for `pause`, then lets what is under way finish, and cuts off what takes too long. */
async function close(server: Server, pause: number): Promise<void> {
  await new Promise(resolve => setTimeout(resolve, pause))
  const closed = new Promise(resolve => server.close(resolve))
  server.closeIdleConnections()
  const cut = setTimeout(() => server.closeAllConnections(), FINISH - 500)
  await closed
  clearTimeout(cut)
}
