import type { Log } from './log.ts'

/** Ctrl-C comes from the terminal and, where npm started us, from npm as well: so soon after it is the same one (ms). */
const SAME = 500

/** How long each lets requests come in still (ms). */
const PAUSES = { SIGTERM: 3_000, SIGINT: 0 } as const

/** Both drain; a second one of either ends at once. */
export function obeySignals(drain: (pause: number) => Promise<unknown>, end: () => unknown) {
  let told: NodeJS.Signals | undefined
  let echoes = true
  const leave = (signal: keyof typeof PAUSES) => {
    if (told === undefined) {
      told = signal
      setTimeout(() => {
        echoes = false
      }, SAME).unref()
      return drain(PAUSES[signal])
    }
    if (signal !== told || !echoes) return end()
  }
  process.on('SIGTERM', () => void leave('SIGTERM'))
  process.on('SIGINT', () => void leave('SIGINT'))
}

export function endAtBug(log: Log) {
  process.on('uncaughtException', error => {
    log.fatal({ err: error }, 'a bug ends this process')
    process.exit(1)
  })
}
