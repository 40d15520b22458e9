import { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { App } from '../../server/app.ts'

/** Calls the app as the adapter does, with a Node request that came over no socket. `ip`: the client's address. */
export async function ask(
  app: App,
  path: string,
  init: RequestInit = {},
  ip = '10.0.0.1',
): Promise<Response> {
  const request = new Request('http://assay.test', { ...init, headers: headersOf(init) })
  const incoming = new IncomingMessage({ remoteAddress: ip, destroyed: true } as Socket)
  incoming.url = path
  incoming.headers = Object.fromEntries(request.headers)
  incoming._read = arriving(incoming, request.body)
  const response = await app.fetch(request, { incoming })
  if (request.body) incoming.destroy()
  return response
}

/** Adds Content-Length for a string body, as HTTP clients do. */
function headersOf({ headers, body }: RequestInit): Headers {
  const all = new Headers(headers)
  if (typeof body === 'string' && !all.has('transfer-encoding'))
    all.set('content-length', String(Buffer.byteLength(body)))
  return all
}

/** Pushes the next chunk of the body each time the server reads. */
function arriving(incoming: IncomingMessage, body: Request['body']) {
  const pieces = body?.getReader()
  return async function next(size: number) {
    // Node's own _read would try to read from the socket, which doesn't exist here.
    IncomingMessage.prototype._read.call(incoming, size)
    try {
      const piece = await pieces?.read()
      incoming.push(piece?.done === false ? piece.value : null)
    } catch (error) {
      incoming.destroy(error as Error)
    }
  }
}
