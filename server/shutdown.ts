import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { exitNow } from './exit.ts'
import type { Log } from './lib/logger.ts'

/**
 * Handles SIGTERM and SIGINT. Every entry point imports this module first, because a signal must also end a
 * process that is still loading its other modules: the kernel drops signals for which process 1 has no
 * handler.
 */

export type Signal = 'SIGTERM' | 'SIGINT'
const SIGNALS: readonly Signal[] = ['SIGTERM', 'SIGINT']

/** The exit code of a process that a signal ended before it served, as shells report it: 143 and 130. */
export const codeOfSignal = (signal: Signal): number => 128 + constants.signals[signal]

/** Time limit for releasing what the exit of a process doesn't release (ms). */
const CLEAN_UP_DEADLINE_MS = 1_000

/**
 * Ctrl-C arrives from the terminal and, if npm started the server, from npm as well. A signal within this time (ms) is the same
 * Ctrl-C.
 */
const ECHO_WINDOW_MS = 500

/** How many milliseconds the process accepts requests after each signal. */
const DRAIN_PAUSE_MS = { SIGTERM: 3_000, SIGINT: 0 } as const

/** Time limit of a drain after its pause (ms). The process then exits even if work is still in progress. */
export const MAX_DRAIN_MS = 7_000
export const DRAIN_TIMEOUT_MESSAGE = 'assay: could not shut down in time\n'

type Reaction = (signal: Signal) => unknown

let react: Reaction = signal => exitNow(codeOfSignal(signal))
const dropped = droppedSignal()
for (const signal of SIGNALS) process.on(signal, () => react(signal))
if (dropped !== undefined) react(dropped)

/**
 * The signal that process 1 got while Node started. Node's own handler for each of the two restores the default and raises the
 * signal again, which the kernel then drops for process 1: the handler of one is gone, and that of the other is still there.
 */
function droppedSignal(): Signal | undefined {
  if (process.pid !== 1 || process.platform !== 'linux') return undefined
  const caught = caughtSignals()
  const gone = SIGNALS.filter(signal => ((caught >> BigInt(constants.signals[signal] - 1)) & 1n) === 0n)
  return gone.length === 1 ? gone[0] : undefined
}

/** proc_pid_status(5): signal n is bit n - 1. */
function caughtSignals(): bigint {
  const [, mask = '0'] = /^SigCgt:\s*(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  return BigInt(`0x${mask}`)
}

/** For workers: the primary decides when they end. */
export function ignoreSignals() {
  react = () => {}
}

/** A signal ends the process after `cleanUp`, which has a second, until handleSignals() is called. */
export function cleanUpAtSignal(cleanUp: () => Promise<unknown>) {
  react = signal => {
    const end = () => exitNow(codeOfSignal(signal))
    react = end
    setTimeout(end, CLEAN_UP_DEADLINE_MS)
    void cleanUp().then(end, end)
  }
}

/** Both signals drain. A second one of either ends the process at once. */
export function handleSignals(drain: (pause: number, signal: Signal) => unknown, end: () => unknown) {
  let received: Signal | undefined
  let echoes = true
  react = signal => {
    if (received === undefined) {
      received = signal
      setTimeout(() => {
        echoes = false
      }, ECHO_WINDOW_MS).unref()
      return drain(DRAIN_PAUSE_MS[signal], signal)
    }
    if (signal !== received || !echoes) return end()
  }
}

export function exitOnUncaught(log: Log) {
  process.on('uncaughtException', error => {
    log.fatal({ err: error }, 'uncaught error, which is a bug; this process exits')
    exitNow(1)
  })
}
