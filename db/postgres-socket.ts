import { EventEmitter, once } from 'node:events'
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { Unavailable } from '../server/lib/errors.ts'
import type { Host } from './connection-url.ts'

/** The sockets that the driver uses. Connecting, TLS and closing are done here and not by the driver. */

/** The operating system checks whether a silent peer still exists after this time (ms). */
const KEEP_ALIVE_MS = 10_000

/** The message SSLRequest: its length and its number. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

/** The message Terminate. */
export const TERMINATE = Buffer.from([88, 0, 0, 0, 4])

/** An error with the code of the system, of TLS or of our own. It has no message, because that could name hosts and files. */
export const linkError = (code: string | undefined) =>
  new Unavailable(`database: ${code ?? 'CONNECTION_CLOSED'}`, 'database')

/** Connects to a host, with TLS if its URL requests TLS. Aborting destroys the socket. Throws Unavailable. */
export async function dial(host: Host, signal: AbortSignal): Promise<Socket> {
  const { host: name, port } = host
  const options = name.startsWith('/') ? { path: `${name}/.s.PGSQL.${port}` } : { host: name, port }
  const socket = connect({ ...options, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS })
  signal.addEventListener('abort', () => socket.destroy(), { once: true })
  try {
    await connected(socket, 'connect')
    return host.tls === undefined ? socket : await encrypt(socket, host)
  } catch (error) {
    socket.destroy()
    throw error instanceof Unavailable ? error : linkError((error as NodeJS.ErrnoException).code)
  }
}

/** Waits for `event`. Throws the socket's error, or Unavailable if it was closed without one. */
async function connected(socket: Socket, event: string): Promise<unknown> {
  const ended = new AbortController()
  const closed = once(socket, 'close', { signal: ended.signal }).then(() => {
    throw linkError('CONNECTION_CLOSED')
  })
  try {
    const [value] = await Promise.race([once(socket, event, { signal: ended.signal }), closed])
    return value
  } finally {
    ended.abort()
  }
}

async function encrypt(socket: Socket, { host, tls, isDirect }: Host): Promise<TLSSocket> {
  if (!isDirect) await askForTls(socket)
  const servername = isIP(host) ? {} : { servername: host }
  const alpn = isDirect ? { ALPNProtocols: ['postgresql'] } : {}
  const encrypted = connectTls({ ...tls, ...servername, ...alpn, socket, host })
  // The encrypted socket emits the same error, and that one is handled.
  socket.on('error', () => {})
  await connected(encrypted, 'secureConnect')
  return encrypted
}

/**
 * Rejects bytes after the answer: an attacker could inject plain text that would be read as if it were
 * encrypted.
 */
async function askForTls(socket: Socket) {
  socket.write(SSL_REQUEST)
  const answer = (await connected(socket, 'data')) as Buffer
  if (answer.length === 1 && answer[0] === 0x4e) throw linkError('NO_TLS')
  if (answer.length !== 1 || answer[0] !== 0x53) throw linkError('NOT_POSTGRES')
}

/** The types of the messages that a server may send during the login. */
const FIRST = new Set([...'RENSKvZ'].map(letter => letter.charCodeAt(0)))
const MAX_MESSAGE_BYTES = 65_536
/** The authentication requests that the driver knows. It would print any other to the console and wait forever. */
const LOGINS = new Set([0, 3, 5, 10, 11, 12])
/**
 * With any other form, the driver throws an uncaught error. It also blocks the main thread for as many iterations as
 * the message names.
 */
const SCRAM_CHALLENGE = /^r=[^,]+,s=[^,]+,i=[1-9]\d{0,5}$/

/** Checks the messages of the login, up to the one that says that the server is ready. */
class Handshake {
  /** The process id of the backend. A pooler sends a number of its own instead. */
  pid = 0
  isOver = false
  #unread: Buffer = Buffer.alloc(0)

  /** Returns the messages that are complete. Throws Unavailable for bytes that Postgres would not send. */
  read(chunk: Buffer): Buffer {
    const bytes = Buffer.concat([this.#unread, chunk])
    let end = 0
    while (!this.isOver && bytes.length >= end + 5) {
      const length = bytes.readUInt32BE(end + 1) + 1
      if (!FIRST.has(bytes[end]!) || length > MAX_MESSAGE_BYTES) throw linkError('NOT_POSTGRES')
      if (bytes.length < end + length) break
      this.#look(bytes.subarray(end, end + length))
      end += length
    }
    this.#unread = this.isOver ? Buffer.alloc(0) : bytes.subarray(end)
    return this.isOver ? bytes : bytes.subarray(0, end)
  }

  #look(message: Buffer) {
    const type = String.fromCharCode(message[0]!)
    if (type === 'Z') this.isOver = true
    if (type === 'K' && message.length >= 9) this.pid = message.readUInt32BE(5)
    if (type !== 'R') return
    const login = message.length < 9 ? -1 : message.readUInt32BE(5)
    if (!LOGINS.has(login)) throw linkError('UNKNOWN_LOGIN')
    if (login === 11 && !SCRAM_CHALLENGE.test(message.toString('utf8', 9))) throw linkError('NOT_POSTGRES')
  }
}

/**
 * Stands between the driver and the real socket, so that the driver can't remove the listeners of that socket and receives no
 * login message that it can't handle. Calls `onEnd` once, with the reason why the socket was closed.
 */
export class DriverSocket extends EventEmitter {
  readonly #socket: Socket
  readonly #handshake = new Handshake()
  #failure: Unavailable | undefined

  constructor(socket: Socket, onEnd: (error: Unavailable) => void) {
    super()
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('drain', () => this.emit('drain'))
    socket.on('error', ({ code }: NodeJS.ErrnoException) => {
      this.#failure ??= linkError(code)
    })
    socket.on('close', () => {
      onEnd(this.#failure ?? linkError('CONNECTION_CLOSED'))
      // The driver gets no error event, because it would attach the statement and its parameters to the error.
      this.emit('close', false)
    })
  }

  get pid() {
    return this.#handshake.pid
  }

  get readyState() {
    return this.#socket.readyState
  }

  #receive(chunk: Buffer) {
    if (this.#handshake.isOver) return this.emit('data', chunk)
    try {
      const messages = this.#handshake.read(chunk)
      if (messages.length > 0) this.emit('data', messages)
    } catch (error) {
      this.destroy(error as Unavailable)
    }
  }

  write(bytes: Buffer): boolean {
    return this.#socket.write(bytes)
  }

  end(bytes: Buffer) {
    this.#socket.end(bytes)
  }

  /** Closes the socket at once. `error` is passed to `onEnd`. */
  destroy(error?: Unavailable) {
    this.#failure ??= error
    this.#socket.destroy()
  }
}
