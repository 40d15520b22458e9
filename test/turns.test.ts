import { connect } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createLog } from '../server/lib/logger.ts'
import { listen } from '../server/listen.ts'
import { until } from './support/process.ts'

/** The order in which the requests of one connection are answered, over real sockets. */

const LONG = Buffer.alloc(16 * 1024 * 1024, 'x')
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const clock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  boot: () => ({ id: 'test', reading: performance.now() }),
}

let server: Awaited<ReturnType<typeof listen>>
/** Called for each request. */
let answer: () => Response | Promise<Response>
let asked: number

beforeEach(async () => {
  asked = 0
  const fetch = () => {
    asked++
    return answer()
  }
  const options = { draining: () => false, clock, log: createLog('silent'), metrics: { refused: () => {} } }
  server = await listen({ fetch: fetch as never }, { host: '127.0.0.1', port: 0 }, options)
})
afterEach(async () => {
  server.server.closeAllConnections()
  await server.close(0)
})

const empty = () => new Response(null, { status: 204 })

function ask(count: number) {
  const socket = connect(server.port, '127.0.0.1').on('error', () => {})
  let text = ''
  socket.on('data', chunk => {
    text += chunk
  })
  socket.write(GET.repeat(count))
  return { socket, text: () => text }
}

test('a pipelined request waits in the server for the answer to the one before', async () => {
  const held = Promise.withResolvers<Response>()
  answer = () => held.promise
  const { text } = ask(3)
  await until('the first has come', () => asked === 1)
  const other = ask(1)
  await until('that of another connection has come', () => asked === 2)
  answer = empty
  held.resolve(empty())
  await until('all are answered', () => text().split('HTTP/1.1 204').length === 4)
  await until('the other too', () => other.text().includes('HTTP/1.1 204'))
  expect(asked).toBe(4)
})

test('a client that reads nothing does not get a second answer', async () => {
  answer = () => new Response(LONG, { headers: { 'Content-Length': String(LONG.length) } })
  const { socket } = ask(20)
  socket.pause()
  await until('the first has come', () => asked === 1)
  const other = ask(2)
  await until('the other client has both', () => other.text().length > 2 * LONG.length)
  expect(asked).toBe(3)
  socket.destroy()
})
