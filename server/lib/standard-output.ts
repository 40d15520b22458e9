import { fstatSync, writeSync } from 'node:fs'
import type { DestinationStream } from 'pino'
import type { Clock } from './clock.ts'
import { gathered } from './logger.ts'

const STDOUT = 1
/** The most bytes of log lines that wait for a reader that is slow, or has stopped reading. */
const MAX_BACKLOG_BYTES = 1024 * 1024

let dropped = 0
let reported = 0

/** The number of log lines that this process has dropped because standard output didn't accept them. */
export const droppedLogLines = (): number => dropped

/**
 * Standard output for log lines. It never blocks the process, and never ends it: lines are dropped and counted if
 * MAX_BACKLOG_BYTES wait for the reader, or if they can't be written (a full disk, a reader that has ended). The next
 * line that is accepted says how many were dropped.
 */
export function standardOutput(clock: Pick<Clock, 'wall'>): DestinationStream & { flushSync(): void } {
  const write = fstatSync(STDOUT).isFile() ? writeToFile : openStream()
  return gathered({ write: text => write(text, dropped > reported ? reportAt(clock.wall()) : '') })
}

/** Node's own stream for a file would never write again after an error. */
function writeToFile(text: string, report: string) {
  try {
    for (let bytes = Buffer.from(report + text); bytes.length > 0; )
      bytes = bytes.subarray(writeSync(STDOUT, bytes))
    reported = dropped
  } catch {
    countDropped(text)
  }
}

function openStream() {
  // The callback of each write gets the error too.
  process.stdout.on('error', () => {})
  return (text: string, report: string) => {
    if (process.stdout.writableLength + text.length > MAX_BACKLOG_BYTES) return countDropped(text)
    process.stdout.write(report + text, error => error && countDropped(text))
    reported = dropped
  }
}

function countDropped(text: string) {
  dropped += text.split('\n').length - 1
}

function reportAt(time: number): string {
  const msg = 'log lines were dropped because standard output did not accept them'
  return `${JSON.stringify({ level: 40, time, dropped: dropped - reported, msg })}\n`
}

/** Writes to standard error. A message that can't be written is lost, without other effects. */
export function writeMessage(text: string) {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => {})
  try {
    process.stderr.write(text)
  } catch {} // A file on a full disk.
}
