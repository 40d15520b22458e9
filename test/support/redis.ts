import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from 'redis'
import { inject, onTestFinished } from 'vitest'
import { openRedis } from '../../db/redis.ts'
import type { Config } from '../../server/config/load.ts'
import type { Log } from '../../server/lib/logger.ts'
import { freePort } from './port.ts'
import { until } from './process.ts'

/** Timeout that keeps a busy machine from looking like a Redis that hangs, for tests of other subjects (ms). */
const PATIENT = 2_000

/** The Redis of a replica, by its settings. */
export const redisOf = (config: Pick<Config, 'redisUrl'>, log: Log) =>
  config.redisUrl === undefined ? undefined : openRedis(config.redisUrl, log, { deadlineMs: PATIENT })

/** Direct access to Redis, bypassing all replicas. */
export async function look(url = inject('redisUrl')) {
  const client = createClient({ url })
  client.on('error', () => {}) // The test that stops this Redis expects the error.
  await client.connect()
  return client
}

/** A Redis that tests may freeze, kill and restart on its port. Stopped when the test ends. */
export async function startRedis(...args: string[]) {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'assay-redis-'))
  const settings = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder, '--save', '', ...args]
  const launch = () => spawn('redis-server', settings, { stdio: 'ignore' })
  let server = launch()
  const url = `redis://127.0.0.1:${port}`

  async function kill() {
    const ended = once(server, 'exit')
    server.kill('SIGKILL')
    await ended
  }
  onTestFinished(async () => {
    if (server.exitCode === null && server.signalCode === null) await kill()
    rmSync(folder, { recursive: true, force: true })
  })

  const listens = () => until('this Redis listens', () => answers(port))
  await listens()
  return {
    url,
    kill,
    freeze: () => server.kill('SIGSTOP'),
    thaw: () => server.kill('SIGCONT'),
    async restart() {
      server = launch()
      await listens()
    },
  }
}

const answers = (port: number) =>
  new Promise<boolean>(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })

const GREETINGS = { HELLO: '%0\r\n', PING: '+PONG\r\n' }

/** A server that greets like Redis and answers everything else as configured. Stopped when the test ends. */
export async function pretend(answer: () => string, greetings: Record<string, string> = GREETINGS) {
  const sockets = new Set<Socket>()
  const reply = (asked: string) => Object.entries(greetings).find(([word]) => asked.includes(word))?.[1]
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {}).on('data', chunk => socket.write(reply(`${chunk}`) ?? answer()))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return `redis://127.0.0.1:${(server.address() as AddressInfo).port}`
}
