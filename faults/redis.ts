import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from 'redis'
import { freePort } from '../test/support/port.ts'
import { until } from '../test/support/process.ts'

/** A Redis server that a test starts and may kill and restart on the same port. */
export type OwnRedis = Awaited<ReturnType<typeof startRedis>>

export async function startRedis() {
  const folder = mkdtempSync(join(tmpdir(), 'assay-redis-'))
  const port = await freePort()
  const url = `redis://127.0.0.1:${port}`
  const settings = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder, '--save', '']
  const launch = () => spawn('redis-server', settings, { stdio: 'ignore' })
  let server = launch()
  const killNow = () => server.kill('SIGKILL')
  process.on('exit', killNow)

  async function kill() {
    const ended = once(server, 'exit')
    killNow()
    await ended
  }
  const listens = () => until('this Redis answers', () => answers(url))
  await listens()
  return {
    url,
    kill,
    async restart() {
      server = launch()
      await listens()
    },
    async stop() {
      await kill()
      process.off('exit', killNow)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const answers = (url: string) =>
  asking(url, redis => redis.ping()).then(
    () => true,
    () => false,
  )

type Client = ReturnType<typeof createClient>

/** Connects to Redis directly, not through a replica. */
export async function asking<Result>(url: string, run: (redis: Client) => Promise<Result>): Promise<Result> {
  const redis = createClient({ url, socket: { reconnectStrategy: false } })
  redis.on('error', () => {}) // The caller gets the error from `connect` or `run`.
  try {
    await redis.connect()
    return await run(redis as Client)
  } finally {
    redis.destroy()
  }
}
