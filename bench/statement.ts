import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/**
 * Captures the statement that a server sends to read a customer, on its way to Postgres, so that the bench does not depend on
 * how the code is laid out.
 */

export interface Statement {
  text: string
  /** As text, in the order of the parameter numbers. */
  params: (string | null)[]
}

/** A proxy to Postgres that records statements. */
export interface Tap {
  url: string
  /** Statements with a parameter that contained this text. */
  withParam(part: string): Statement[]
  close(): void
}

export async function tap(database: string): Promise<Tap> {
  const { hostname, port } = new URL(database)
  const seen: Statement[] = []
  const sockets = new Set<Socket>()
  const server = createServer(client => {
    const upstream = connect(Number(port || 5432), hostname)
    const read = reader(seen)
    client.on('data', read)
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from)
      from.on('error', () => to.destroy()).pipe(to)
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const here = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url: Object.assign(new URL(database), { host: here }).href,
    withParam: part => seen.filter(({ params }) => params.some(each => each?.includes(part))),
    close: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Parses one connection. The first message has no type; each later one is a type letter, a length and a body. */
function reader(seen: Statement[]): (chunk: Buffer) => void {
  const texts = new Map<string, string>()
  let rest = Buffer.alloc(0)
  let started = false
  return chunk => {
    rest = Buffer.concat([rest, chunk])
    for (;;) {
      const head = started ? 1 : 0
      if (rest.length < head + 4) return
      const end = head + rest.readInt32BE(head)
      if (rest.length < end) return
      if (started) message(String.fromCharCode(rest[0]!), rest.subarray(5, end), texts, seen)
      started = true
      rest = rest.subarray(end)
    }
  }
}

function message(type: string, body: Buffer, texts: Map<string, string>, seen: Statement[]) {
  if (type === 'P') {
    const [name, text] = words(body)
    texts.set(name, text)
  }
  if (type !== 'B') return
  const [portal, name] = words(body)
  const params = paramsOf(body.subarray(Buffer.byteLength(portal + name) + 2))
  seen.push({ text: texts.get(name) ?? '', params })
}

/** The first two strings of a message, each of which is zero-terminated. */
function words(body: Buffer): [string, string] {
  const first = body.indexOf(0)
  return [body.toString('utf8', 0, first), body.toString('utf8', first + 1, body.indexOf(0, first + 1))]
}

function paramsOf(bind: Buffer): (string | null)[] {
  const formats = bind.readInt16BE(0)
  let at = 2 + 2 * formats
  const params: (string | null)[] = []
  const many = bind.readInt16BE(at)
  at += 2
  for (let i = 0; i < many; i++) {
    const length = bind.readInt32BE(at)
    at += 4
    params.push(length < 0 ? null : bind.toString('utf8', at, at + length))
    at += Math.max(0, length)
  }
  return params
}
