import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import { addressKey } from '../lib/rate-limiter.ts'

/**
 * The most bytes of answers that clients have not read. An answer has up to 300 kB, or more from /docs, and a client
 * may leave it unread for WRITE_TIMEOUT_MS: without a limit, the connections of one account could hold gigabytes.
 */
export const MAX_UNREAD_BYTES = 64 * 1024 * 1024
/** Closed connections are logged at most once in this time (ms). */
const LOG_INTERVAL_MS = 60_000

export interface UnreadAnswersOptions {
  clock: Clock
  log: Log
  max: number
}

interface Unread {
  address: string
  bytes: number
}

/**
 * Counts the bytes of answers that the system has not accepted from this process, and closes connections above a
 * limit.
 */
export class UnreadAnswers {
  readonly #clock: Clock
  readonly #log: Log
  readonly #max: number
  /** By connection, until it closes, in the order of the first unread answers. */
  readonly #bySocket = new Map<Socket, Unread>()
  #bytes = 0
  #closed = 0
  #loggedAt = Number.NEGATIVE_INFINITY

  constructor({ clock, log, max }: UnreadAnswersOptions) {
    this.#clock = clock
    this.#log = log
    this.#max = max
  }

  /**
   * Called with an answer that has ended and that the system has not fully accepted. It counts until the system has.
   */
  add(response: ServerResponse) {
    const { socket } = response.req
    if (socket.destroyed) return
    const unread = this.#of(socket)
    const bytes = response.writableLength
    this.#change(unread, bytes)
    response.once('close', () => this.#bySocket.has(socket) && this.#change(unread, -bytes))
    if (this.#bytes > this.#max) this.#makeRoom()
  }

  #of(socket: Socket): Unread {
    const known = this.#bySocket.get(socket)
    if (known) return known
    const unread = { address: addressKey(socket.remoteAddress), bytes: 0 }
    this.#bySocket.set(socket, unread)
    // A pipelined answer behind another one gets no `close` event when the connection closes.
    socket.once('close', () => this.#remove(socket))
    return unread
  }

  #change(unread: Unread, bytes: number) {
    unread.bytes += bytes
    this.#bytes += bytes
  }

  #remove(socket: Socket) {
    this.#bytes -= this.#bySocket.get(socket)?.bytes ?? 0
    this.#bySocket.delete(socket)
  }

  /** Frees a quarter of the memory at once, so that searching for the address with the most bytes is rare. */
  #makeRoom() {
    while (this.#bytes > 0.75 * this.#max) this.#closeSome(this.#addressOfMost())
    this.#noteClosed()
  }

  #closeSome(address: string) {
    for (const [socket, unread] of this.#bySocket) {
      if (this.#bytes <= 0.75 * this.#max) return
      if (unread.address !== address || unread.bytes === 0) continue
      this.#closed++
      this.#remove(socket)
      socket.destroy()
    }
  }

  #addressOfMost(): string {
    const held = new Map<string, number>()
    for (const { address, bytes } of this.#bySocket.values())
      held.set(address, (held.get(address) ?? 0) + bytes)
    return [...held].reduce((most, each) => (each[1] > most[1] ? each : most))[0]
  }

  #noteClosed() {
    const now = this.#clock.monotonic()
    if (now - this.#loggedAt < LOG_INTERVAL_MS) return
    this.#loggedAt = now
    this.#log.warn(
      { closed: this.#closed, max: this.#max },
      'clients read their responses too slowly; closing connections of the address with the most unread bytes',
    )
  }
}
