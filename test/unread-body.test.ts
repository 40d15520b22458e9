import { execFile } from 'node:child_process'
import { connect, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createLog } from '../server/lib/logger.ts'
import { listen } from '../server/listen.ts'
import { until } from './support/process.ts'
import { findProgram } from './support/program.ts'

/** How the server handles a body that it refuses without reading it, over real sockets. */

const BODY = Buffer.alloc(1024 * 1024, 'x')
const clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  boot: () => ({ id: 'test', reading: performance.now() }),
}

let server: Awaited<ReturnType<typeof listen>>
const address = () => `http://127.0.0.1:${server.port}/`

beforeEach(async () => {
  const refuse = () => new Response('no', { status: 429, headers: { 'Content-Length': '2' } })
  const options = { draining: () => false, clock, log: createLog('silent'), metrics: { refused: () => {} } }
  server = await listen({ fetch: refuse as never }, { host: '127.0.0.1', port: 0 }, options)
})
afterEach(async () => {
  server.server.closeAllConnections()
  await server.close(0)
})

interface Sender {
  socket: Socket
  /** How often the server has refused a body. */
  refusals(): number
}

/** A connection that sends this many bodies. It reads nothing until `reads` of them are sent. */
function send(count: number): Sender {
  const socket = connect(server.port, '127.0.0.1').on('error', () => {})
  let text = ''
  socket.on('data', chunk => {
    text += chunk
  })
  for (let i = 0; i < count; i++) {
    socket.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${BODY.length}\r\n\r\n`)
    socket.write(BODY)
  }
  return { socket, refusals: () => text.split('HTTP/1.1 429').length - 1 }
}

describe('a client whose body of a megabyte is refused unread', () => {
  test('gets the answer, even if it sends the whole body before it reads', async () => {
    const { socket, refusals } = send(1)
    socket.pause()
    await until('the body is sent', () => socket.writableLength === 0)
    socket.resume()
    await until('it is refused', () => refusals() === 1)
    expect(socket.destroyed).toBe(false)
  })

  test('can reuse its connection', async () => {
    const { socket, refusals } = send(3)
    await until('all are refused', () => refusals() === 3)
    expect(socket.destroyed).toBe(false)
    socket.destroy()
  })

  test.each([
    ['curl', 'curl', ['-s', '-w', ' %{http_code}', '-H', 'Expect:', '--data-binary', '@-']],
    ['Python', 'python3', ['-c', PYTHON()]],
  ])('gets the answer: %s (skipped if not installed)', async (_name, name, args) => {
    const program = findProgram(name)
    if (program === undefined) return
    const run = promisify(execFile)(program, [...args, address()])
    run.child.stdin!.on('error', () => {}).end(BODY)
    expect((await run).stdout).toBe('no 429')
  })

  test('gets the answer: fetch', async () => {
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => fetch(address(), { method: 'POST', body: BODY })),
    )
    expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(429))
    expect(await Promise.all(answers.map(answer => answer.text()))).toEqual(Array(10).fill('no'))
  })
})

/** `http.client` sends the whole body before it reads the answer. */
function PYTHON() {
  return `
import http.client, sys, urllib.parse
at = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(at.hostname, at.port)
connection.request('POST', '/', sys.stdin.buffer.read())
answer = connection.getresponse()
print(answer.read().decode(), answer.status, end='')`
}

describe('refused clients that keep sending', () => {
  /** Bytes per millisecond, and an allowance per connection for the system's buffers and the last turns. */
  const RATE = (64 * 1024) / 4
  const SLACK = 512 * 1024

  test('make the server read at most 16 MB a second, all together', async () => {
    const began = performance.now()
    const senders = Array.from({ length: 12 }, () => send(8))
    await until('two bodies of each are refused', () => senders.every(({ refusals }) => refusals() >= 2))
    const most = (performance.now() - began) * RATE + senders.length * SLACK
    const taken = senders.reduce((sum, { refusals }) => sum + (refusals() - 1) * BODY.length, 0)
    expect(taken).toBeLessThan(most)
    for (const { socket } of senders) socket.destroy()
  }, 30_000)

  test('endlessly are disconnected', async () => {
    const socket = connect(server.port, '127.0.0.1')
      .on('error', () => {})
      .resume()
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
    const chunk = Buffer.from(`100000\r\n${'x'.repeat(0x100000)}\r\n`)
    const sendOn = () => socket.destroyed || socket.write(chunk, sendOn)
    sendOn()
    await until('it is cut off', () => socket.destroyed)
  })

  test('cost the oldest connection, once there are too many', async () => {
    const senders = Array.from({ length: 300 }, () => send(1))
    await until('some are cut off', () => senders.filter(({ socket }) => socket.destroyed).length > 0)
    expect(senders.at(-1)!.socket.destroyed).toBe(false)
    for (const { socket } of senders) socket.destroy()
  })
})
