import { expect } from 'vitest'
import { beginStart, type StartOptions } from './starting.ts'

/** How long a waiting process may keep running after a signal (ms). */
export const PROMPT_MS = 2_000

/** The same for a process that is loading modules when the signal comes, on a machine whose cores are busy (ms). */
const BUSY_MS = 8_000

/** How long a draining server accepts requests after SIGTERM (ms). */
const PAUSE_MS = 3_000

/**
 * A signal every `step` milliseconds until `last`, alternating SIGTERM and SIGINT. The times for process 1 are halfway
 * between those for an ordinary process.
 */
export function moments(last: number, step: number, asInit: boolean) {
  const first = asInit ? step / 2 : 0
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => ({
    delay: first + i * step,
    name: i % 2 === 0 ? ('SIGTERM' as const) : ('SIGINT' as const),
  }))
}

/**
 * Signals a start `delay` milliseconds after its process can receive signals. Expects that it ends soon with the exit
 * code of the signal, or with 0 if it was already serving, and that none of its processes is left.
 */
export async function signalAt(delay: number, name: 'SIGTERM' | 'SIGINT', options: StartOptions) {
  const start = beginStart(options)
  await start.hasHandlers()
  await new Promise(resolve => setTimeout(resolve, delay))
  const began = performance.now()
  start.signal(name)
  const late = setTimeout(() => start.signal('SIGKILL'), BUSY_MS + PAUSE_MS)
  const code = await start.exited
  clearTimeout(late)
  const took = performance.now() - began
  const drained = start.stdout().includes('"msg":"draining"')
  const at = `${name} at ${delay} ms: ${start.stdout()}${start.stderr()}`
  expect(start.stderr(), at).not.toMatch(/^assay: /m)
  // Until our handlers are installed, the signal itself ends an ordinary process.
  const early = { SIGTERM: [143, 'SIGTERM'], SIGINT: [130, 'SIGINT'] }[name]
  expect(drained ? [0] : options.asInit ? early.slice(0, 1) : early, at).toContain(code)
  expect(took, at).toBeLessThan(BUSY_MS + (drained && name === 'SIGTERM' ? PAUSE_MS : 0))
  expect(start.isLeft(), at).toBe(false)
}
