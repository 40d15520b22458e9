import type { Log } from './log.ts'

/** SIGTERM drains, SIGINT drains without the pause (ms); a second one of either ends at once. */
export function obeySignals(drain: (pause: number) => Promise<unknown>, end: () => unknown) {
  let told = false
  const leave = (pause: number) => {
    if (told) return end()
    told = true
    return drain(pause)
  }
  process.on('SIGTERM', () => void leave(3_000))
  process.on('SIGINT', () => void leave(0))
}

export function endAtBug(log: Log) {
  process.on('uncaughtException', error => {
    log.fatal({ err: error }, 'a bug ends this process')
    process.exit(1)
  })
}
