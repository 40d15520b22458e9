import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** What the link does to the bytes that arrive from now on. */
type Mode = 'pass' | 'swallow' | { delay: number }

export type Proxy = Awaited<ReturnType<typeof openProxy>>

/** A TCP link to `target`, a Postgres URL, that fails on command. `url` is the same database through it. */
export async function openProxy(target: string) {
  const { hostname, port, ...rest } = partsOf(target)
  const links = new Set<Link>()
  let mode: Mode = 'pass'
  let accepted = 0
  let silenced: string | undefined
  let cut: string | undefined
  const server = createServer({ allowHalfOpen: true }, client => {
    accepted++
    const link = makeLink(client, connect({ host: hostname, port, allowHalfOpen: true }), () => mode)
    client.prependListener('data', chunk => {
      if (silenced !== undefined && chunk.includes(silenced)) link.silence()
      if (cut !== undefined && chunk.includes(cut)) link.reset()
    })
    links.add(link)
    void link.ended.then(() => links.delete(link))
  })
  const listen = async (at: number) => {
    server.listen(at, '127.0.0.1')
    await once(server, 'listening')
  }
  await listen(0)
  const own = (server.address() as AddressInfo).port
  const reset = () => {
    for (const link of links) link.reset()
  }

  return {
    url: rest.through(own),
    /** Connections taken so far. */
    accepted: () => accepted,
    /** As if there were no proxy. What fell silent before stays silent: it has lost bytes. */
    async pass() {
      mode = 'pass'
      if (!server.listening) await listen(own)
    },
    /** Every chunk, in both directions, comes so much later (ms). */
    delay(milliseconds: number) {
      mode = { delay: milliseconds }
    },
    /** Nothing arrives any more, no connection is reset, and new ones hear nothing. */
    blackHole() {
      mode = 'swallow'
    },
    /** The connection on which these bytes go to the database falls silent there and then; the others are whole. */
    silenceAt(marker: string) {
      silenced = marker
    },
    /** The connection on which these bytes go to the database is cut there and then. */
    resetAt(marker: string) {
      cut = marker
    },
    /** Cuts every connection with a RST; new ones are served. */
    reset,
    /** Cuts every connection, and takes no new one. */
    refuse() {
      server.close()
      reset()
    },
    close() {
      if (server.listening) server.close()
      reset()
    },
  }
}

interface Link {
  reset(): void
  silence(): void
  ended: Promise<void>
}

/** Not events.once: that rejects on an error, and a reset is one. */
const closed = (socket: Socket) => new Promise<void>(resolve => socket.once('close', () => resolve()))

function makeLink(client: Socket, database: Socket, mode: () => Mode): Link {
  const state = { silent: false }
  forward(client, database, mode, state)
  forward(database, client, mode, state)
  const reset = () => {
    client.resetAndDestroy()
    database.destroy()
  }
  const ended = Promise.all([closed(client), closed(database)]).then(() => {})
  const silence = () => {
    state.silent = true
  }
  return { reset, silence, ended }
}

/** Bytes and ends of one direction. A link that has swallowed anything is never whole again. */
function forward(from: Socket, to: Socket, mode: () => Mode, state: { silent: boolean }) {
  const send = (deliver: () => void) => {
    const now = mode()
    state.silent ||= now === 'swallow'
    if (state.silent) return
    if (typeof now === 'object') setTimeout(deliver, now.delay)
    else deliver()
  }
  from.on('data', chunk => send(() => to.writable && to.write(chunk)))
  from.on('end', () => send(() => to.end()))
  from.on('error', () => send(() => to.resetAndDestroy()))
  from.setNoDelay()
}

function partsOf(target: string) {
  const { hostname, port } = new URL(target)
  const through = (own: number) => {
    const url = new URL(target)
    url.host = `127.0.0.1:${own}`
    return url.href
  }
  return { hostname, port: Number(port || 5432), through }
}
