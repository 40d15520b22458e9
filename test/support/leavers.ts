import { connect } from 'node:net'

/** Clients that disconnect before they have read their answer. */

/** `fin` closes the connection; `reset` resets it, so that the server can neither read nor write any more. */
export const DEPARTURES = ['fin', 'reset'] as const
export type Departure = (typeof DEPARTURES)[number]

/** A test fails if its client has not received the bytes that it waits for by then (ms). */
const DEADLINE = 20_000

/** Sends these bytes, reads at most `read` bytes of the answer, and disconnects. Resolves once its socket is closed. */
export function sendAndLeave(port: number, bytes: string, by: Departure, read = 0): Promise<void> {
  let missing = read
  const leave = () => (by === 'fin' ? socket.destroy() : socket.resetAndDestroy())
  const socket = connect({
    port,
    host: '127.0.0.1',
    onread: {
      buffer: () => Buffer.alloc(Math.max(1, missing)),
      callback(size) {
        missing -= size
        if (read > 0 && missing <= 0) leave()
        return true
      },
    },
  })
  return new Promise((resolve, reject) => {
    socket.setTimeout(DEADLINE, () => socket.destroy(new Error(`${read} bytes of an answer did not come`)))
    // The server may close first, and these clients reset their connections on purpose.
    socket.on('error', error => ('code' in error ? undefined : reject(error)))
    socket.on('close', () => resolve())
    if (read === 0) socket.write(bytes, leave)
    else socket.write(bytes)
  })
}

/** Sends these bytes and closes only the sending side. Resolves with all bytes received until the server closed. */
export function sendAndHalfClose(port: number, bytes: string): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  let received = ''
  socket.setEncoding('latin1').on('data', chunk => {
    received += chunk
  })
  socket.on('error', () => {})
  socket.end(bytes)
  return new Promise(resolve => socket.on('close', () => resolve(received)))
}

/** Runs all tasks, at most `most` at the same time. */
export async function atMost(most: number, runs: (() => Promise<unknown>)[]): Promise<void> {
  const waiting = runs.values()
  const one = async () => {
    for (const run of waiting) await run()
  }
  await Promise.all(Array.from({ length: most }, one))
}
