import { once } from 'node:events'
import { connect } from 'node:net'

/** Bytes on a socket, for what no HTTP client would send. */

export interface Raw {
  write(bytes: string | Uint8Array): void
  /** All that came back so far. */
  text(): string
  /** The status of every answer so far. */
  statuses(): number[]
  /** Resolves when the connection has ended, whoever ended it. */
  closed: Promise<void>
  isClosed(): boolean
  /** Bytes that the system has taken from us. */
  sent(): number
  destroy(): void
}

/** A connection to this port of this machine; resolves once it is accepted. */
export async function openRaw(port: number): Promise<Raw> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  let text = ''
  let isClosed = false
  socket.setEncoding('latin1').on('data', chunk => {
    text += chunk
  })
  // A reset is an end too: who sends nonsense is not owed a farewell.
  socket.on('error', () => {})
  const closed = new Promise<void>(resolve => {
    socket.once('close', () => {
      isClosed = true
      resolve()
    })
  })
  return {
    write: bytes => void socket.write(bytes),
    text: () => text,
    statuses: () => [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status)),
    closed,
    isClosed: () => isClosed,
    sent: () => socket.bytesWritten - socket.writableLength,
    destroy: () => void socket.destroy(),
  }
}

/** Sends these bytes, and answers what came until the other side ended it; a deadline (ms) ends it from here. */
export async function exchange(port: number, bytes: string, deadline = 3_000): Promise<Raw> {
  const raw = await openRaw(port)
  const late = setTimeout(() => raw.destroy(), deadline)
  raw.write(bytes)
  await raw.closed
  clearTimeout(late)
  return raw
}
