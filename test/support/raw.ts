import { once } from 'node:events'
import { connect } from 'node:net'

/** Raw bytes on a socket, for requests that no HTTP client would send. */

export interface Raw {
  write(bytes: string | Uint8Array): void
  /** All bytes received so far. */
  text(): string
  /** The statuses of all answers so far. */
  statuses(): number[]
  /** Resolves when either side has ended the connection. */
  closed: Promise<void>
  isClosed(): boolean
  /** How many bytes the system has accepted from us. */
  sent(): number
  destroy(): void
}

/** Connects to this port on this machine; resolves once connected. */
export async function openRaw(port: number): Promise<Raw> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  let text = ''
  let isClosed = false
  socket.setEncoding('latin1').on('data', chunk => {
    text += chunk
  })
  // A reset also counts as an end: the server may reset clients that send nonsense.
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

/** Sends these bytes and returns everything received until the server closed; after `deadline` (ms) this side closes. */
export async function exchange(port: number, bytes: string, deadline = 3_000): Promise<Raw> {
  const raw = await openRaw(port)
  const late = setTimeout(() => raw.destroy(), deadline)
  raw.write(bytes)
  await raw.closed
  clearTimeout(late)
  return raw
}
