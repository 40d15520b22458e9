import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import type { MetricSnapshot } from '../lib/metrics.ts'
import { WorkerProcess } from './process.ts'
import type { AskedOfPrimary } from './protocol.ts'
import { WorkerMetrics } from './worker-metrics.ts'

/** Before a worker is replaced (ms): doubled by each that dies young, so that a fault that stays costs little. */
const MIN_RESTART_DELAY_MS = 200
const MAX_RESTART_DELAY_MS = 10_000
/** Who has lived so long was well (ms). */
const HEALTHY_AFTER_MS = 60_000
/** How long a worker may take to answer (ms): less than the one that waits for the numbers of all. */
const METRICS_TIMEOUT_MS = 500

export interface PlaceOptions {
  /** From 1. */
  number: number
  clock: Clock
  log: Log
  /** What its workers may ask. */
  answers: Omit<AskedOfPrimary, 'failed'>
  /** Whether the port that a worker listens on is that of the others. */
  isRightPort(port: number): boolean
}

/** One of the places for a worker. When the one in it dies, another comes. */
export class Place {
  readonly #options: PlaceOptions
  readonly #counted = new WorkerMetrics()
  #worker: WorkerProcess
  #bornAt = 0
  #leaving = false
  /** Workers that ended without being told to. */
  losses = 0
  /** Times that a worker did not tell its numbers. */
  silences = 0

  constructor(options: PlaceOptions) {
    this.#options = options
    this.#worker = this.#fork()
  }

  get isListening() {
    return this.#worker.isListening
  }

  /** Resolves with the port once its first worker listens. From then on the place is kept. Throws FailedStart. */
  async taken(): Promise<number> {
    const port = await this.#worker.listens
    void this.#keep()
    return port
  }

  #fork(): WorkerProcess {
    const { number, clock, log, answers, isRightPort } = this.#options
    this.#bornAt = clock.monotonic()
    const worker = new WorkerProcess(answers)
    const welcome = (port: number) => {
      if (isRightPort(port)) log.info({ worker: number, pid: worker.pid }, 'a worker listens')
      else worker.kill()
    }
    worker.listens.then(welcome, () => {})
    return worker
  }

  async #keep(): Promise<void> {
    const { number, clock, log } = this.#options
    for (let wait = MIN_RESTART_DELAY_MS; ; wait = Math.min(wait * 2, MAX_RESTART_DELAY_MS)) {
      const { message } = await this.#worker.ended
      if (this.#leaving) return
      this.losses++
      await this.#counted.close()
      if (clock.monotonic() - this.#bornAt >= HEALTHY_AFTER_MS) wait = MIN_RESTART_DELAY_MS
      log.error({ worker: number, reason: message, wait }, 'a worker ended; another takes its place')
      await pause(wait)
      if (this.#leaving) return
      this.#worker = this.#fork()
    }
  }

  /** What its workers have counted so far; of one that doesn't answer, what it last told. */
  async numbers(): Promise<MetricSnapshot[]> {
    const worker = this.#worker
    if (!worker.isListening) return this.#counted.silent()
    const told = await worker.link.ask('metrics', undefined, METRICS_TIMEOUT_MS).catch(() => undefined)
    if (told === undefined) this.silences++
    // It may have ended since, and what it counted be among the ended.
    return told && worker.isListening ? this.#counted.told(told) : this.#counted.silent()
  }

  /** `delay` as in Served.drain. Resolves with the exit code once nobody is left. */
  async drain(delay: number): Promise<number> {
    this.#leaving = true
    const worker = this.#worker
    if (!worker.isListening) return this.end()
    void worker.link.ask('drain', delay, METRICS_TIMEOUT_MS).catch(() => {}) // Who can't hear it is ended when time is up.
    return (await worker.ended).code
  }

  /** At once. */
  async end(): Promise<0> {
    this.#leaving = true
    this.#worker.kill()
    await this.#worker.ended
    return 0
  }
}
