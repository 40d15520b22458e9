import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Connections, MAX_PIPELINED } from '../server/http/connections.ts'
import { responseClass } from '../server/http/server-response.ts'
import { createLog } from '../server/lib/logger.ts'
import { collectGarbage } from './support/memory.ts'
import { until } from './support/process.ts'

/** The connection limits, tested on real sockets of several addresses. */

const MAX = 10
/** Milliseconds. */
const WRITE_TIMEOUT = 500
/** Bytes; more than the system's own buffers hold. */
const LONG = 32 * 2 ** 20
let server: Server
let lines: string[]
const clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  boot: () => ({ id: 'test', reading: performance.now() }),
}

/** The open responses of '/held', until a test ends them. */
let held: ServerResponse[]
/** The requests that are still in memory. */
let requests: WeakRef<IncomingMessage>[]

const start = async (keepAliveTimeout: number, more: { maxUnread?: number; writeTimeout: number }) => {
  lines = []
  held = []
  requests = []
  const log = createLog('info', { write: line => void lines.push(line) })
  const connections = new Connections({ clock, log, max: MAX, ...more })
  const onEnded = (response: ServerResponse) => connections.ended(response)
  const Response = responseClass({ draining: () => false, onInvalidHeader: () => {}, onEnded })
  server = createServer({ keepAliveTimeout, ServerResponse: Response }, (incoming, response) => {
    const { url } = incoming
    requests.push(new WeakRef(incoming))
    if (url === '/held') held.push(response)
    else if (url === '/late') setTimeout(() => response.end('late'), 3 * WRITE_TIMEOUT)
    else response.end(url === '/long' ? Buffer.alloc(LONG) : '')
  })
  connections.watch(server)
  server.listen(0, '0.0.0.0')
  await once(server, 'listening')
}

beforeEach(() => start(100, { writeTimeout: WRITE_TIMEOUT }))
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

/** A connection from one of the loopback addresses. Resolves once the server has accepted or refused it. */
async function open(localAddress = '127.0.0.1'): Promise<Socket> {
  const { port } = server.address() as AddressInfo
  const accepted = once(server, 'connection')
  const socket = connect({ port, host: '127.0.0.1', localAddress }).on('error', () => {})
  await accepted
  return socket
}

const openMany = async (count: number, address: string) => {
  const sockets = []
  for (let i = 0; i < count; i++) sockets.push(await open(address))
  return sockets
}
const isClosed = (socket: Socket) => socket.destroyed || socket.readableEnded
const closed = (socket: Socket) => until('it is closed', () => isClosed(socket.resume()))

describe('a client', () => {
  const ask = async (path: string) => {
    const socket = (await open()).pause()
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`)
    return socket
  }

  test('that reads nothing of its answer is disconnected', async () => {
    const requested = once(server, 'request')
    await ask('/long')
    const [{ socket }, response] = await requested
    await until('it is cut off', () => socket.destroyed)
    expect(response.writableFinished).toBe(false)
  })

  test('that reads something now and then is not', async () => {
    const socket = await ask('/long')
    let taken = 0
    socket.on('data', ({ length }) => {
      taken += length
      socket.pause()
      setTimeout(() => socket.resume(), WRITE_TIMEOUT / 50)
    })
    socket.resume()
    await until('it has all', () => taken > LONG)
    expect(isClosed(socket)).toBe(false)
  })

  test('that waits for its answer is not, however long that takes', async () => {
    const socket = await ask('/late')
    let text = ''
    socket.on('data', chunk => {
      text += chunk
    })
    socket.resume()
    await until('it is answered', () => text.endsWith('late'))
    expect(isClosed(socket)).toBe(false)
  })

  test('that sends no further request is', async () => {
    const socket = await ask('/')
    await closed(socket)
  })
})

describe('pipelined requests', () => {
  const GET = 'GET /held HTTP/1.1\r\nHost: a\r\n\r\n'

  test('may fill the queue behind the first; one more closes the connection', async () => {
    server.close()
    await start(60_000, { writeTimeout: 60_000 })
    const socket = await open()
    let text = ''
    socket.on('data', chunk => {
      text += chunk
    })
    socket.write(GET.repeat(MAX_PIPELINED + 1))
    await until('all have come', () => held.length === MAX_PIPELINED + 1)
    expect(isClosed(socket)).toBe(false)
    for (const response of held.splice(0)) response.end()
    await until('all are answered', () => text.split('HTTP/1.1 200').length === MAX_PIPELINED + 2)
    // Answered requests no longer count.
    socket.write(GET.repeat(MAX_PIPELINED + 1))
    await until('all have come', () => held.length === MAX_PIPELINED + 1)
    socket.write(GET)
    await closed(socket)
  })
})

describe('unread answers', () => {
  const askForLong = async (address: string) => {
    const socket = (await open(address)).pause()
    const requested = once(server, 'request')
    socket.write('GET /long HTTP/1.1\r\nHost: a\r\n\r\n')
    await requested
    return socket
  }

  test('cost the address with the most of them its oldest connection, once there are too many', async () => {
    server.close()
    await start(60_000, { writeTimeout: 60_000, maxUnread: 4.5 * LONG })
    const other = await askForLong('127.0.0.2')
    const own: Socket[] = []
    for (let i = 0; i < 3; i++) own.push(await askForLong('127.0.0.1'))
    expect([other, ...own].filter(isClosed)).toEqual([])
    const newest = await askForLong('127.0.0.1')
    // A quarter is freed at once: two of five answers.
    await closed(own[0]!)
    await closed(own[1]!)
    expect([other, own[2]!, newest].filter(isClosed)).toEqual([])
    expect(lines.map(line => JSON.parse(line))).toEqual([
      expect.objectContaining({ level: 40, closed: 2, max: 4.5 * LONG }),
    ])
  })

  test('no longer count once they are read', async () => {
    server.close()
    await start(60_000, { writeTimeout: 60_000, maxUnread: 2 * LONG })
    const socket = await askForLong('127.0.0.1')
    let taken = 0
    socket.on('data', ({ length }) => {
      taken += length
    })
    socket.resume()
    for (let answers = 1; answers <= 4; answers++) {
      await until('it is taken', () => taken > answers * LONG)
      socket.write('GET /long HTTP/1.1\r\nHost: a\r\n\r\n')
    }
    expect(isClosed(socket)).toBe(false)
    expect(lines).toEqual([])
  })
})

test('an idle connection does not keep its last request in memory', async () => {
  server.close()
  await start(60_000, { writeTimeout: 60_000 })
  const socket = await open()
  socket.resume().write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello')
  await once(socket, 'data')
  await until('it is collected', () => {
    collectGarbage()
    return requests[0]!.deref() === undefined
  })
  expect(isClosed(socket)).toBe(false)
})

describe('at the limit of connections', () => {
  test('the address with the most connections loses its oldest to another address', async () => {
    const [oldest, ...others] = await openMany(MAX - 1, '127.0.0.1')
    const [other, newcomer] = await openMany(2, '127.0.0.2')
    await closed(oldest!)
    expect([other!, newcomer!, ...others].filter(isClosed)).toEqual([])
  })

  test('another connection of the address with the most is refused', async () => {
    const kept = [...(await openMany(MAX - 1, '127.0.0.1')), await open('127.0.0.2')]
    await closed(await open('127.0.0.1'))
    expect(kept.filter(isClosed)).toEqual([])
    expect(lines.map(line => JSON.parse(line))).toEqual([
      expect.objectContaining({ level: 40, refused: 1, max: MAX }),
    ])
  })

  test('a connection that ends makes room', async () => {
    const [first] = await openMany(MAX, '127.0.0.1')
    first!.destroy()
    await until(
      'the server has noticed',
      () => new Promise(resolve => server.getConnections((_, count) => resolve(count < MAX))),
    )
    expect(isClosed(await open('127.0.0.1'))).toBe(false)
    expect(lines).toEqual([])
  })
})
