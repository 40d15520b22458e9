import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** What a link does to bytes from now on. */
interface Weather {
  /** Delay of the bytes, which stay in order (ms). */
  delay: number
  /** The share of chunks that reset the connection instead of passing. */
  resets: number
  /** The share of the server's chunks that are truncated before the connection is reset. */
  halves: number
  /** New connections are accepted and closed. */
  closeNew: boolean
  /**
   * Nothing passes and nothing is reset; new connections get no answer. A connection that lost bytes stays silent
   * permanently.
   */
  swallow: boolean
  /** The connection on which these bytes go to the server falls silent at that point; others are unaffected. */
  silenceAt: string | undefined
  /** The connection on which these bytes go to the server is reset at that point. */
  resetAt: string | undefined
  /** The connection on which these bytes go to the server is reset when the answer arrives: the request has been executed. */
  resetAtAnswerTo: string | undefined
}

const FAIR: Weather = {
  delay: 0,
  resets: 0,
  halves: 0,
  closeNew: false,
  swallow: false,
  silenceAt: undefined,
  resetAt: undefined,
  resetAtAnswerTo: undefined,
}

interface Connection {
  client: Socket
  server: Socket
  silent: boolean
}

export type Link = Awaited<ReturnType<typeof openLink>>

/** A TCP link to the server of `target`, a URL, with faults that a test can switch on. `url` is `target` through the link. */
export async function openLink(target: string) {
  const connections = new Set<Connection>()
  /** Counts since the link was opened. `lost` counts chunks that were dropped silently. */
  const counts = { accepted: 0, resets: 0, halved: 0, lost: 0 }
  let weather = FAIR
  let goal = addressOf(target)

  const reset = (connection: Connection) => {
    counts.resets++
    connection.client.resetAndDestroy()
    connection.server.destroy()
  }
  const resetAll = () => {
    for (const connection of connections) reset(connection)
  }
  const listener = createServer({ allowHalfOpen: true }, client => {
    counts.accepted++
    if (weather.closeNew) {
      client.on('error', () => {})
      client.destroy()
      return
    }
    const connection = { client, server: connect({ ...goal, allowHalfOpen: true }), silent: false }
    connections.add(connection)
    void ended(connection).then(() => connections.delete(connection))
    const events = { weather: () => weather, reset, lose: () => counts.lost++ }
    forward(connection, 'client', events)
    forward(connection, 'server', events)
  })
  const listen = async (port: number) => {
    listener.listen(port, '127.0.0.1')
    await once(listener, 'listening')
  }
  await listen(0)
  const { port } = listener.address() as AddressInfo

  return {
    url: withPort(target, port),
    counts,
    /** Replaces the current fault. */
    set(change: Partial<Weather>) {
      weather = { ...FAIR, ...change }
    },
    /** Passes everything on, except on connections that have fallen silent. */
    async fair() {
      weather = FAIR
      // Closes the silent connections on the server's side for clients that gave up.
      for (const { client, server } of connections) if (client.destroyed) server.destroy()
      if (!listener.listening) await listen(port)
    },
    /** Resets every connection; new ones are accepted. */
    resetAll,
    /** Resets every connection and accepts no new one until `fair()`. */
    refuse() {
      listener.close()
      resetAll()
    },
    /** As when the remote machine loses power: existing connections get no answer and no close. New connections work. */
    halve() {
      for (const connection of connections) {
        counts.halved++
        connection.silent = true
        connection.server.destroy()
      }
    },
    /** New connections go to this URL's server; existing ones stay. */
    leadTo(url: string) {
      goal = addressOf(url)
    },
    close() {
      if (listener.listening) listener.close()
      resetAll()
    },
  }
}

interface Events {
  weather(): Weather
  reset(connection: Connection): void
  lose(): void
}

/** Chunks, ends and errors of one direction. */
function forward(connection: Connection, side: 'client' | 'server', { weather, reset, lose }: Events) {
  const [from, to] =
    side === 'client' ? [connection.client, connection.server] : [connection.server, connection.client]
  const inOrder = delayLine(() => weather().delay)
  const send = (deliver: () => void) => {
    connection.silent ||= weather().swallow
    if (connection.silent) lose()
    else inOrder(deliver)
  }
  const told = (chunk: string | Buffer, marker: string | undefined) =>
    side === 'client' && marker !== undefined && chunk.includes(marker)
  from.setNoDelay()
  from.on('data', chunk => {
    const { resets, halves, silenceAt, resetAt, resetAtAnswerTo } = weather()
    if (told(chunk, resetAt) || (resets > 0 && Math.random() < resets)) return reset(connection)
    if (side === 'server' && halves > 0 && Math.random() < halves) {
      to.write(chunk.slice(0, Math.floor(Math.random() * chunk.length)))
      // A reset would drop bytes that were written but not yet sent, so they are flushed first.
      to.end(() => reset(connection))
      return
    }
    connection.silent ||= told(chunk, silenceAt)
    if (told(chunk, resetAtAnswerTo)) to.prependOnceListener('data', () => reset(connection))
    send(() => to.writable && to.write(chunk))
  })
  from.on('end', () => send(() => to.end()))
  from.on('error', () => send(() => to.resetAndDestroy()))
}

/** Keeps the order of TCP: bytes sent while the link was slow are not overtaken when it is fast again. */
function delayLine(delay: () => number) {
  let waiting = 0
  let last = Promise.resolve()
  return function inOrder(deliver: () => void) {
    if (waiting === 0 && delay() === 0) return deliver()
    const due = performance.now() + delay()
    waiting++
    last = last
      .then(() => sleep(Math.max(0, due - performance.now())))
      .then(() => {
        waiting--
        deliver()
      })
  }
}

/** Not events.once: that rejects on an error, and a reset is an error. */
const closed = (socket: Socket) => new Promise<void>(resolve => socket.once('close', () => resolve()))

const ended = ({ client, server }: Connection) => Promise.all([closed(client), closed(server)])

const PORTS: Record<string, number> = { 'postgres:': 5432, 'postgresql:': 5432, 'redis:': 6379 }

function addressOf(target: string) {
  const { protocol, hostname, port } = new URL(target)
  return { host: hostname, port: Number(port || PORTS[protocol]) }
}

function withPort(target: string, port: number) {
  const url = new URL(target)
  url.host = `127.0.0.1:${port}`
  return url.href
}
