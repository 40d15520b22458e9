import { once } from 'node:events'
import { connect } from 'node:net'

/** Exchanges raw bytes with a server; no client interprets or corrects them. */

export interface RawAnswer {
  status: number
  /** Lower-case header names; a repeated header is an error. */
  headers: Record<string, string>
  head: string
  body: string
}

/** How long an answer may take on a busy machine (ms). */
const DEADLINE = 60_000

/** A connection that sends exactly the given bytes. */
export async function dial(port: number) {
  const socket = connect(port, '127.0.0.1')
  let received = ''
  let ended = false
  socket.setEncoding('latin1').on('data', chunk => {
    received += chunk
  })
  // A reset also ends it; the bytes received before it count.
  socket.on('error', () => {})
  const closed = once(socket, 'close').then(() => {
    ended = true
  })
  await once(socket, 'connect')

  /** Waits until `enough` accepts the received bytes, or the server closes. */
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
    /** The head of the first answer, as soon as it is complete. */
    head: async () => parseAnswer(await until(text => text.includes('\r\n\r\n'))),
    /** All bytes until the server closes. */
    rest: () => until(() => false),
    received: () => received,
    closed,
    destroy: () => socket.destroy(),
  }
}

/** Sends one request byte for byte on its own connection; returns all bytes until the server closes. */
export async function exchange(port: number, request: string): Promise<string> {
  const wire = await dial(port)
  wire.write(request)
  try {
    return await wire.rest()
  } finally {
    wire.destroy()
  }
}

/** The lines of a request with `Connection: close`. */
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
