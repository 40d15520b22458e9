import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** What a link does to bytes. */
interface Weather {
  /** Later by so much, in order (ms). */
  delay: number
  /** The share of chunks at which the connection is reset instead. */
  resets: number
  /** Nothing arrives, nothing is reset. What lost bytes to it is silent for good. */
  swallow: boolean
  /** A connection on which these bytes go to the database is silent from then on. */
  deafTo: string | undefined
}

const FAIR: Weather = { delay: 0, resets: 0, swallow: false, deafTo: undefined }

interface Connection {
  client: Socket
  database: Socket
  silent: boolean
}

export type Link = Awaited<ReturnType<typeof openLink>>

/** A TCP link to `target`, a Postgres URL, that fails on command; `url` is the same database through it. */
export async function openLink(target: string) {
  const { hostname, port } = new URL(target)
  const connections = new Set<Connection>()
  const counts = { accepted: 0, resets: 0, halved: 0 }
  let weather = FAIR

  const reset = (connection: Connection) => {
    counts.resets++
    connection.client.resetAndDestroy()
    connection.database.destroy()
  }

  const server = createServer({ allowHalfOpen: true }, client => {
    counts.accepted++
    const database = connect({ host: hostname, port: Number(port || 5432), allowHalfOpen: true })
    const connection = { client, database, silent: false }
    connections.add(connection)
    client.on('close', () => connections.delete(connection))
    forward(connection, 'client', () => weather, reset)
    forward(connection, 'database', () => weather, reset)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(target)
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`

  return {
    url: url.href,
    counts,
    set(change: Partial<Weather>) {
      weather = { ...FAIR, ...change }
    },
    fair() {
      weather = FAIR
    },
    resetAll() {
      for (const connection of connections) reset(connection)
    },
    /** As when the other machine lost its power: its end is gone, ours hears nothing. New connections are whole. */
    halve() {
      for (const connection of connections) {
        counts.halved++
        connection.silent = true
        connection.database.destroy()
      }
    },
    close() {
      server.close()
      for (const connection of connections) reset(connection)
    },
  }
}

/** Bytes, ends and errors of one direction. */
function forward(
  connection: Connection,
  side: 'client' | 'database',
  weather: () => Weather,
  reset: (connection: Connection) => void,
) {
  const { client, database } = connection
  const [from, to] = side === 'client' ? [client, database] : [database, client]
  const inOrder = delayLine(() => weather().delay)
  const send = (deliver: () => void) => {
    connection.silent ||= weather().swallow
    if (!connection.silent) inOrder(deliver)
  }
  from.setNoDelay()
  from.on('data', chunk => {
    const { resets, deafTo } = weather()
    if (resets > 0 && Math.random() < resets) return reset(connection)
    if (side === 'client' && deafTo !== undefined && chunk.includes(deafTo)) connection.silent = true
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
