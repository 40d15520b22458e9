import { execFile } from 'node:child_process'
import { connect, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createLog } from '../server/lib/logger.ts'
import { listen } from '../server/listen.ts'
import { until } from './support/process.ts'
import { findProgram } from './support/program.ts'

/** What happens to a body that the server refuses without reading it, over real sockets. */

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
  /** How often the server has refused it. */
  refusals(): number
}

/** A connection that sends this many bodies. It reads nothing before `reads` of its own bodies are sent. */
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

describe('a client whose megabyte is refused unread', () => {
  test('is told so, though it sends all of it before it reads anything', async () => {
    const { socket, refusals } = send(1)
    socket.pause()
    await until('the body is sent', () => socket.writableLength === 0)
    socket.resume()
    await until('it is refused', () => refusals() === 1)
    expect(socket.destroyed).toBe(false)
  })

  test('can use its connection again', async () => {
    const { socket, refusals } = send(3)
    await until('all are refused', () => refusals() === 3)
    expect(socket.destroyed).toBe(false)
    socket.destroy()
  })

  test.each([
    ['curl', 'curl', ['-s', '-w', ' %{http_code}', '-H', 'Expect:', '--data-binary', '@-']],
    ['Python', 'python3', ['-c', PYTHON()]],
  ])('is told so: %s (skipped where it is not installed)', async (_name, name, args) => {
    const program = findProgram(name)
    if (program === undefined) return
    const run = promisify(execFile)(program, [...args, address()])
    run.child.stdin!.on('error', () => {}).end(BODY)
    expect((await run).stdout).toBe('no 429')
  })

  test('is told so: fetch', async () => {
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

describe('clients that are refused and send on', () => {
  /** Bytes a millisecond, and what the system's buffers and the last turns may add for each connection. */
  const RATE = (64 * 1024) / 4
  const SLACK = 512 * 1024

  test('make the server read 16 MB a second at most, all together', async () => {
    const began = performance.now()
    const senders = Array.from({ length: 12 }, () => send(8))
    await until(
      'two bodies of each are refused',
      () => senders.every(({ refusals }) => refusals() >= 2),
      20_000,
    )
    const most = (performance.now() - began) * RATE + senders.length * SLACK
    const taken = senders.reduce((sum, { refusals }) => sum + (refusals() - 1) * BODY.length, 0)
    expect(taken).toBeLessThan(most)
    for (const { socket } of senders) socket.destroy()
  }, 30_000)

  test('without an end are cut off', async () => {
    const socket = connect(server.port, '127.0.0.1')
      .on('error', () => {})
      .resume()
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
    const chunk = Buffer.from(`100000\r\n${'x'.repeat(0x100000)}\r\n`)
    const sendOn = () => socket.destroyed || socket.write(chunk, sendOn)
    sendOn()
    await until('it is cut off', () => socket.destroyed)
  })

  test('cost the oldest of them its connection, once they are too many', async () => {
    const senders = Array.from({ length: 300 }, () => send(1))
    await until('some are cut off', () => senders.filter(({ socket }) => socket.destroyed).length > 0)
    expect(senders.at(-1)!.socket.destroyed).toBe(false)
    for (const { socket } of senders) socket.destroy()
  })
})
