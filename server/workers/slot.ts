import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import type { MetricSnapshot } from '../lib/metrics.ts'
import { WorkerMetrics } from './metrics.ts'
import { WorkerProcess } from './process.ts'
import type { PrimaryHandlers } from './protocol.ts'

/** Doubled by each worker that dies young, so that a lasting fault costs little. */
const MIN_RESTART_DELAY_MS = 200
const MAX_RESTART_DELAY_MS = 10_000
/** A worker that has lived this long started well. */
const HEALTHY_AFTER_MS = 60_000
/** Less than the deadline of the worker that waits for the metrics of all. */
const METRICS_TIMEOUT_MS = 500

export interface WorkerSlotOptions {
  /** From 1. */
  number: number
  clock: Clock
  log: Log
  handlers: Omit<PrimaryHandlers, 'failed'>
  /** Whether the port that a worker listens on is that of the others. */
  isRightPort(port: number): boolean
}

/** A place for one worker. When the worker dies, another one replaces it. */
export class WorkerSlot {
  readonly #options: WorkerSlotOptions
  readonly #metrics = new WorkerMetrics()
  #worker: WorkerProcess
  #startedAt = 0
  #isLeaving = false
  /** The number of workers that ended unexpectedly. */
  losses = 0
  /** Times that a worker did not report its metrics. */
  silences = 0

  constructor(options: WorkerSlotOptions) {
    this.#options = options
    this.#worker = this.#fork()
  }

  get isListening() {
    return this.#worker.isListening
  }

  /** Resolves with the port once the first worker listens, and supervises it from then on. Throws StartError. */
  async ready(): Promise<number> {
    const port = await this.#worker.listens
    void this.#supervise()
    return port
  }

  #fork(): WorkerProcess {
    const { number, clock, log, handlers, isRightPort } = this.#options
    this.#startedAt = clock.monotonic()
    const worker = new WorkerProcess(handlers)
    const welcome = (port: number) => {
      if (isRightPort(port)) log.info({ worker: number, pid: worker.pid }, 'a worker is listening')
      else worker.kill()
    }
    worker.listens.then(welcome, () => {})
    return worker
  }

  async #supervise(): Promise<void> {
    const { number, clock, log } = this.#options
    for (let wait = MIN_RESTART_DELAY_MS; ; wait = Math.min(wait * 2, MAX_RESTART_DELAY_MS)) {
      const { message } = await this.#worker.ended
      if (this.#isLeaving) return
      this.losses++
      await this.#metrics.carryOver()
      if (clock.monotonic() - this.#startedAt >= HEALTHY_AFTER_MS) wait = MIN_RESTART_DELAY_MS
      log.error({ worker: number, reason: message, wait }, 'a worker exited; starting another one')
      await sleep(wait)
      if (this.#isLeaving) return
      this.#worker = this.#fork()
    }
  }

  /** Returns the counts of all its workers so far. If the worker doesn't answer, they are its last totals. */
  async metrics(): Promise<MetricSnapshot[]> {
    const worker = this.#worker
    if (!worker.isListening) return this.#metrics.stale()
    const reported = await worker.channel
      .call('metrics', undefined, METRICS_TIMEOUT_MS)
      .catch(() => undefined)
    if (reported === undefined) this.silences++
    // The worker may have ended since the call. Its totals are then carried over already.
    return reported && worker.isListening ? this.#metrics.update(reported) : this.#metrics.stale()
  }

  /** `pauseMs` as in Served.drain. Resolves with the exit code once the worker has ended. */
  async drain(pauseMs: number): Promise<number> {
    this.#isLeaving = true
    const worker = this.#worker
    if (!worker.isListening) return this.end()
    // A worker that doesn't receive this call is killed at the deadline.
    void worker.channel.call('drain', pauseMs, METRICS_TIMEOUT_MS).catch(() => {})
    return (await worker.ended).code
  }

  /** Kills the worker. */
  async end(): Promise<0> {
    this.#isLeaving = true
    this.#worker.kill()
    await this.#worker.ended
    return 0
  }
}
