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

/** With the length of a body that is there as a whole, as clients send it. */
function headersOf({ headers, body }: RequestInit): Headers {
  const all = new Headers(headers)
  if (typeof body === 'string' && !all.has('transfer-encoding'))
    all.set('content-length', String(Buffer.byteLength(body)))
  return all
}

/** A piece each time that one is asked for, and none before. */
function arriving(incoming: IncomingMessage, body: Request['body']) {
  const pieces = body?.getReader()
  return async function next(size: number) {
    // Node's own, which begins to read of a socket that there isn't.
    IncomingMessage.prototype._read.call(incoming, size)
    try {
      const piece = await pieces?.read()
      incoming.push(piece?.done === false ? piece.value : null)
    } catch (error) {
      incoming.destroy(error as Error)
    }
  }
}
