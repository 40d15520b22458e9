import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import { OwnerCounts } from '../lib/owner-counts.ts'
import { addressKey } from '../lib/rate-limiter.ts'
import { MAX_UNREAD_BYTES, UnreadAnswers } from './unread-answers.ts'

/** The most connections that a process holds. Each takes about 20 kB, plus the size of its request and answer. */
export const MAX_CONNECTIONS = 5_000
/** A connection whose client reads nothing of an answer for this long is closed (ms). */
export const WRITE_TIMEOUT_MS = 30_000
/**
 * The most requests of a connection that may wait behind an unanswered one. Node reads 64 KiB at once, which can contain 2,000
 * requests. Ordinary clients and proxies do not send a request before they have the last answer.
 */
export const MAX_PIPELINED = 4
/** Refused connections are logged at most once in this time (ms). */
const LOG_INTERVAL_MS = 60_000

export interface ConnectionsOptions {
  clock: Clock
  log: Log
  max?: number
  /** Bytes. */
  maxUnread?: number
  /** Milliseconds. */
  writeTimeout?: number
}

/** The requests of a connection. */
interface Requests {
  /** The response to the last one, until the system has accepted all of it: it also holds the request's body. */
  last: ServerResponse | undefined
  /** The number of unanswered requests that arrived while another was unanswered. */
  pipelined: number
}

/**
 * Limits the number of connections and what they hold. Node itself closes connections that send their request too slowly, but not
 * those that read their answer too slowly, and it does not limit their number.
 */
export class Connections {
  readonly #clock: Clock
  readonly #log: Log
  readonly #max: number
  readonly #writeTimeout: number
  /** By address, in the order in which they were opened. */
  readonly #byAddress = new Map<string, Set<Socket>>()
  readonly #requests = new WeakMap<Socket, Requests>()
  readonly #unread: UnreadAnswers
  readonly #counts = new OwnerCounts()
  #size = 0
  #refused = 0
  #loggedAt = Number.NEGATIVE_INFINITY

  constructor({
    clock,
    log,
    max = MAX_CONNECTIONS,
    maxUnread = MAX_UNREAD_BYTES,
    writeTimeout = WRITE_TIMEOUT_MS,
  }: ConnectionsOptions) {
    this.#clock = clock
    this.#log = log
    this.#max = max
    this.#writeTimeout = writeTimeout
    this.#unread = new UnreadAnswers({ clock, log, max: maxUnread })
  }

  watch(server: Server) {
    server.on('connection', socket => this.#admit(socket))
    server.prependListener('request', ({ socket }, response) => this.#begin(socket, response))
    // Node calls this for a connection without progress in either direction. With this handler, we must also close
    // idle ones.
    server.setTimeout(this.#writeTimeout, socket => this.#isBeingAnswered(socket) || socket.destroy())
  }

  #begin(socket: Socket, response: ServerResponse) {
    const requests = this.#requests.get(socket)
    if (requests === undefined) return void this.#requests.set(socket, { last: response, pipelined: 0 })
    const { last } = requests
    requests.last = response
    if (last?.writableFinished === false) this.#pipeline(socket, requests, response)
  }

  /** Closes the connection if too many requests of it are unanswered. */
  #pipeline(socket: Socket, requests: Requests, response: ServerResponse) {
    requests.pipelined++
    response.once('close', () => requests.pipelined--)
    if (requests.pipelined > MAX_PIPELINED) socket.destroy()
  }

  /** Called with each answer once it has been written; the system may not have accepted all of it yet. */
  ended(response: ServerResponse) {
    if (response.writableLength === 0) return this.#forget(response)
    this.#unread.add(response)
    response.once('close', () => this.#forget(response))
  }

  #forget(response: ServerResponse) {
    const requests = this.#requests.get(response.req.socket)
    if (requests?.last === response) requests.last = undefined
  }

  /** Whether the client waits for an answer that has not begun, for example of a long act. */
  #isBeingAnswered(socket: Socket): boolean {
    return socket.writableLength === 0 && this.#requests.get(socket)?.last?.writableFinished === false
  }

  #admit(socket: Socket) {
    // The audit and the limits need the client's address, which a connection that has been reset no longer has.
    if (socket.remoteAddress === undefined) return void socket.destroy()
    const address = addressKey(socket.remoteAddress)
    if (this.#size >= this.#max && !this.#makeRoom(address)) return void socket.destroy()
    const own = this.#byAddress.get(address) ?? new Set()
    this.#byAddress.set(address, own.add(socket))
    this.#counts.add(address)
    this.#size++
    socket.once('close', () => this.#remove(address, socket))
  }

  #remove(address: string, socket: Socket) {
    const own = this.#byAddress.get(address)
    if (!own?.delete(socket)) return
    this.#counts.remove(address)
    this.#size--
    if (own.size === 0) this.#byAddress.delete(address)
  }

  /**
   * Closes the oldest connection of the address with the most, so that no address can displace all others. Returns
   * false unless that address will still have more than the newcomer's; the newcomer is then refused.
   */
  #makeRoom(newcomer: string): boolean {
    this.#noteRefusal()
    const most = this.#counts.ownerOfMost
    if (most === undefined || this.#counts.most <= this.#counts.of(newcomer) + 1) return false
    const [oldest] = this.#byAddress.get(most)!
    this.#remove(most, oldest!)
    oldest!.destroy()
    return true
  }

  #noteRefusal() {
    this.#refused++
    const now = this.#clock.monotonic()
    if (now - this.#loggedAt < LOG_INTERVAL_MS) return
    this.#loggedAt = now
    this.#log.warn(
      { refused: this.#refused, max: this.#max },
      'too many connections; for each new one, a connection of the address with the most is closed',
    )
  }
}
