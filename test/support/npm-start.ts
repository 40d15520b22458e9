import { connect } from 'node:net'
import { expect } from 'vitest'
import { npm, type Script } from './npm.ts'
import { freePort } from './port.ts'
import { until } from './process.ts'

export interface ServerByNpm extends Script {
  port: number
}

/** Starts an npm script that serves on a free port. Resolves once it listens. */
export async function startByNpm(words: string[], settings: Record<string, string>): Promise<ServerByNpm> {
  const port = await freePort()
  const script = npm(words, { PORT: String(port), ...settings })
  await until('it listens', () => script.output().includes('"msg":"listening"'))
  return { ...script, port }
}

/** How long a drain may take when no request is running, and its pause after SIGTERM (ms). */
const DRAIN_MS = 2_500
const PAUSE_MS = { SIGTERM: 3_000, SIGINT: 0 }

/** Signals it with `send`, and expects that the server drains, npm exits with 0 and the port is free. */
export async function expectDrain(server: ServerByNpm, signal: 'SIGTERM' | 'SIGINT', send: () => void) {
  const began = performance.now()
  send()
  expect(await server.exited).toBe(0)
  expect(performance.now() - began).toBeLessThan(PAUSE_MS[signal] + DRAIN_MS)
  expect(server.output().match(/"msg":"(draining|ended)"/g)).toEqual(['"msg":"draining"', '"msg":"ended"'])
  expect(await isFree(server.port)).toBe(true)
}

const isFree = (port: number) =>
  new Promise<boolean>(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(false)).once('error', () => resolve(true))
    socket.once('connect', () => socket.destroy())
  })
