/**
 * A backend that trusts its gateway: it returns the identity headers of the request, and does not handle tokens.
 * Like any backend behind a gateway it must be reachable only through it, because a direct caller could forge X-Auth-* headers.
 */
import { createServer, type IncomingMessage } from 'node:http'

const host = process.env.HOST ?? '127.0.0.1'
const port = Number(process.env.PORT ?? 3002)

function identity(headers: IncomingMessage['headers']) {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith('x-auth-')))
}

const server = createServer((request, response) => {
  request.resume()
  const { method, url } = request
  // Without the query, which may contain secrets.
  const path = url?.split('?')[0]
  response.setHeader('content-type', 'application/json')
  response.end(`${JSON.stringify({ method, path, identity: identity(request.headers) })}\n`)
})

server.listen(port, host, () => {
  process.stdout.write(`listening ${JSON.stringify(server.address())}\n`)
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    server.close()
    server.closeIdleConnections()
  })
}
