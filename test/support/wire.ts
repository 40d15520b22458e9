import { once } from 'node:events'
import { connect } from 'node:net'

/** Bytes to a server and back, unread and unmended by any client. */

export interface RawAnswer {
  status: number
  /** Lower-case names; a header that comes twice is an error. */
  headers: Record<string, string>
  head: string
  body: string
}

/** How long any answer may take on a busy machine (ms). */
const DEADLINE = 10_000

/** A connection that says what it is told to say. */
export async function dial(port: number) {
  const socket = connect(port, '127.0.0.1')
  let received = ''
  let ended = false
  socket.setEncoding('latin1').on('data', chunk => {
    received += chunk
  })
  // A reset ends it too; what came before it counts.
  socket.on('error', () => {})
  const closed = once(socket, 'close').then(() => {
    ended = true
  })
  await once(socket, 'connect')

  /** Waits until `enough` says so of what has come, or the server closes. */
  async function until(enough: (received: string) => boolean): Promise<string> {
    const late = AbortSignal.timeout(DEADLINE)
    while (!ended && !enough(received)) {
      const more = new AbortController()
      const signal = AbortSignal.any([late, more.signal])
      try {
        await Promise.race([once(socket, 'data', { signal }), closed])
      } finally {
        more.abort()
      }
    }
    return received
  }

  return {
    write: (data: string | Uint8Array) => !socket.destroyed && socket.write(data),
    /** The first answer's head, as soon as it is there. */
    head: async () => parseAnswer(await until(text => text.includes('\r\n\r\n'))),
    /** All that comes until the server closes. */
    rest: () => until(() => false),
    received: () => received,
    closed,
    destroy: () => socket.destroy(),
  }
}

/** One request, word for word, on a connection of its own; all that comes back until the server closes. */
export async function exchange(port: number, request: string): Promise<string> {
  const wire = await dial(port)
  wire.write(request)
  try {
    return await wire.rest()
  } finally {
    wire.destroy()
  }
}

/** The lines of a request that asks for the connection to be closed. */
export const lines = (first: string, headers: Record<string, string> = {}) =>
  `${[
    `${first} HTTP/1.1`,
    ...Object.entries({ Host: 'assay.test', Connection: 'close', ...headers }).map(h => h.join(': ')),
  ].join('\r\n')}\r\n\r\n`

export const ask = async (port: number, first: string, headers?: Record<string, string>) =>
  parseAnswer(await exchange(port, lines(first, headers)))

export function parseAnswer(received: string): RawAnswer {
  const end = received.indexOf('\r\n\r\n')
  const [status = '', ...fields] = received.slice(0, end).split('\r\n')
  const pairs = fields.map(line => [
    line.slice(0, line.indexOf(':')).toLowerCase(),
    line.slice(line.indexOf(':') + 1).trim(),
  ])
  const headers = Object.fromEntries(pairs)
  if (end < 0 || Object.keys(headers).length !== pairs.length)
    throw new Error('not one answer with each header once')
  return {
    status: Number(status.split(' ')[1]),
    headers,
    head: received.slice(0, end),
    body: received.slice(end + 4),
  }
}
