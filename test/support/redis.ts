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

/** So that a busy machine is not taken for a Redis that hangs, where that isn't the subject (ms). */
const PATIENT = 2_000

/** A replica's Redis, by its settings. */
export const redisOf = (config: Pick<Config, 'redisUrl'>, log: Log) =>
  config.redisUrl === undefined ? undefined : openRedis(config.redisUrl, log, { deadlineMs: PATIENT })

/** What is in Redis, past every replica. */
export async function look(url = inject('redisUrl')) {
  const client = createClient({ url })
  client.on('error', () => {}) // A test that stops this Redis knows.
  await client.connect()
  return client
}

/** A Redis of our own, which may be frozen, killed and started again on its port. Ended when the test ends. */
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

/** Something that greets like a Redis and answers all else as it is told to. Ended when the test ends. */
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
