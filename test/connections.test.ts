import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Connections } from '../server/http/connections.ts'
import { createLog } from '../server/lib/logger.ts'
import { until } from './support/process.ts'

/** The limits of connections, on real sockets of several addresses. */

const MAX = 10
/** Milliseconds. */
const WRITE_TIMEOUT = 500
/** Bytes, more than the system's own buffers take. */
const LONG = 32 * 2 ** 20
let server: Server
let lines: string[]
const clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  boot: () => ({ id: 'test', reading: performance.now() }),
}

beforeEach(async () => {
  lines = []
  const log = createLog('info', { write: line => void lines.push(line) })
  const connections = new Connections({ clock, log, max: MAX, writeTimeout: WRITE_TIMEOUT })
  server = createServer({ keepAliveTimeout: 100 }, ({ url }, response) => {
    if (url === '/late') setTimeout(() => response.end('late'), 3 * WRITE_TIMEOUT)
    else response.end(url === '/long' ? Buffer.alloc(LONG) : '')
  })
  connections.watch(server)
  server.listen(0, '0.0.0.0')
  await once(server, 'listening')
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

/** A connection from one of the addresses of loopback, which the server has accepted or refused when this resolves. */
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

  test('that takes nothing of its answer is cut off', async () => {
    const requested = once(server, 'request')
    await ask('/long')
    const [{ socket }, response] = await requested
    await until('it is cut off', () => socket.destroyed)
    expect(response.writableFinished).toBe(false)
  })

  test('that takes something now and then is not', async () => {
    const socket = await ask('/long')
    let taken = 0
    socket.on('data', ({ length }) => {
      taken += length
      socket.pause()
      setTimeout(() => socket.resume(), WRITE_TIMEOUT / 50)
    })
    socket.resume()
    await until('it has all', () => taken > LONG, 30_000)
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

  test('that asks for nothing more is', async () => {
    const socket = await ask('/')
    await closed(socket)
  })
})

describe('with as many connections as there may be', () => {
  test('an address that has most of them loses its oldest to another address', async () => {
    const [oldest, ...others] = await openMany(MAX - 1, '127.0.0.1')
    const [other, newcomer] = await openMany(2, '127.0.0.2')
    await closed(oldest!)
    expect([other!, newcomer!, ...others].filter(isClosed)).toEqual([])
  })

  test('a further one of the address that has most of them is refused', async () => {
    const kept = [...(await openMany(MAX - 1, '127.0.0.1')), await open('127.0.0.2')]
    await closed(await open('127.0.0.1'))
    expect(kept.filter(isClosed)).toEqual([])
    expect(lines.map(line => JSON.parse(line))).toEqual([
      expect.objectContaining({ level: 40, refused: 1, max: MAX }),
    ])
  })

  test('one that ends makes room', async () => {
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
