import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** What a link does to the bytes that come from now on. */
interface Weather {
  /** Later by so much, in order (ms). */
  delay: number
  /** The share of chunks at which the connection is reset instead. */
  resets: number
  /** The share of the server's chunks of which only a part arrives before the connection is reset. */
  halves: number
  /** New connections are accepted and closed. */
  closeNew: boolean
  /** Nothing arrives, nothing is reset, new connections hear nothing. What lost bytes to it is silent for good. */
  swallow: boolean
  /** The connection on which these bytes go to the server falls silent there and then; the others are whole. */
  silenceAt: string | undefined
  /** The connection on which these bytes go to the server is reset there and then. */
  resetAt: string | undefined
  /** The connection on which these bytes go to the server is reset when the answer comes: what was asked is done. */
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

/** A TCP link to the server of `target`, a URL, that fails on command; `url` is the same through it. */
export async function openLink(target: string) {
  const connections = new Set<Connection>()
  /** Since it was opened; `lost` are chunks that fell silent. */
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
    /** Instead of whatever it was. */
    set(change: Partial<Weather>) {
      weather = { ...FAIR, ...change }
    },
    /** As if there were no link, for what has not fallen silent. */
    async fair() {
      weather = FAIR
      // The server learns at last of those that gave up.
      for (const { client, server } of connections) if (client.destroyed) server.destroy()
      if (!listener.listening) await listen(port)
    },
    /** Cuts every connection with a RST; new ones are served. */
    resetAll,
    /** Cuts every connection, and takes no new one until it is fair. */
    refuse() {
      listener.close()
      resetAll()
    },
    /** As when the other machine lost its power: its end is gone, ours hears nothing. New connections are whole. */
    halve() {
      for (const connection of connections) {
        counts.halved++
        connection.silent = true
        connection.server.destroy()
      }
    },
    /** New connections go to this URL's server, those there are stay. */
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

/** Bytes, ends and errors of one direction. */
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
      // What was written goes out first, where a reset would drop it.
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

/** TCP keeps its order: what was sent over the slow link is not overtaken when the link is quick again. */
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

/** Not events.once: that rejects on an error, and a reset is one. */
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
