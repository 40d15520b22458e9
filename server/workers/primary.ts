import cluster from 'node:cluster'
import { CredentialFiles } from '../config/credential-files.ts'
import type { Config, Credentials } from '../config/load.ts'
import type { Clock } from '../lib/clock.ts'
import { RateLimitedError } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import { MemoryRateLimiter } from '../lib/rate-limiter.ts'
import { writeMessage } from '../lib/standard-output.ts'
import type { StartupSecrets } from '../serve.ts'
import { DRAIN_TIMEOUT_MESSAGE, MAX_DRAIN_MS } from '../shutdown.ts'
import { MetricsAggregator } from './metrics.ts'
import type { PrimaryHandlers } from './protocol.ts'
import { WorkerSlot } from './slot.ts'

export interface PrimaryOptions {
  config: Config & StartupSecrets
  workers: number
  clock: Clock
  log: Log
}

/** Runs several workers on one port. This process only passes on connections, counts tries and replaces dead workers. */
export class Primary {
  #config: Config & StartupSecrets
  readonly #limits = new MemoryRateLimiter()
  readonly #slots: WorkerSlot[]
  readonly #metrics: MetricsAggregator
  readonly #log: Log
  readonly #credentialFiles: CredentialFiles
  /** The port of all workers, once one of them listens. */
  #port: number | undefined
  #isLeaving = false

  constructor({ config, workers, clock, log }: PrimaryOptions) {
    this.#config = config
    this.#log = log
    // Each worker reads the files for itself. The primary does so for workers that it starts later.
    const apply = (credentials: Credentials) => {
      this.#config = { ...this.#config, ...credentials }
    }
    this.#credentialFiles = new CredentialFiles({ config, apply, log })
    // Round robin, because otherwise the system decides, and a few workers get most connections. `advanced`, because keys are
    // bytes.
    cluster.schedulingPolicy = cluster.SCHED_RR
    cluster.setupPrimary({ serialization: 'advanced' })
    const isRightPort = (port: number) => {
      this.#port ??= port
      return port === this.#port
    }
    this.#slots = Array.from({ length: workers }, (_, i) => {
      const number = i + 1
      return new WorkerSlot({ number, clock, log, handlers: this.#handlers(number, workers), isRightPort })
    })
    this.#metrics = new MetricsAggregator(this.#slots)
  }

  get isListening() {
    return this.#slots.some(({ isListening }) => isListening)
  }

  /**
   * Resolves with the port once all workers listen. If one can't start, ends all and throws StartError. Never settles if
   * drain() or end() is called before that, because the caller of these ends the process.
   */
  async start(): Promise<number> {
    await this.#credentialFiles.start()
    try {
      const [port] = await Promise.all(this.#slots.map(slot => slot.ready()))
      return port!
    } catch (error) {
      if (this.#isLeaving) return new Promise(() => {})
      await this.end()
      throw error
    }
  }

  #handlers(number: number, of: number): Omit<PrimaryHandlers, 'failed'> {
    return {
      settings: async () => ({ config: { ...this.#config, port: this.#portToRequest() }, number, of }),
      take: ({ limit, key }) => this.#take(limit, key),
      metrics: () => this.#metrics.text(),
    }
  }

  /**
   * The system chooses one port for all workers if PORT=0. If all die, their replacements request the same
   * port.
   */
  #portToRequest(): number {
    if (!this.isListening && this.#port !== undefined) this.#config = { ...this.#config, port: this.#port }
    return this.#config.port
  }

  async #take(...tried: Parameters<MemoryRateLimiter['take']>): Promise<number | undefined> {
    try {
      await this.#limits.take(...tried)
    } catch (refused) {
      if (!(refused instanceof RateLimitedError)) throw refused
      return refused.retryAfter
    }
  }

  /** `pauseMs` as in Served.drain. Resolves with this process's exit code once all workers have ended. */
  async drain(pauseMs: number): Promise<number> {
    this.#isLeaving = true
    this.#log.info('draining')
    const timer = setTimeout(() => {
      writeMessage(DRAIN_TIMEOUT_MESSAGE)
      void this.end()
    }, pauseMs + MAX_DRAIN_MS)
    const codes = await Promise.all(this.#slots.map(slot => slot.drain(pauseMs)))
    clearTimeout(timer)
    this.#log.info('ended')
    return Math.max(...codes)
  }

  async end(): Promise<void> {
    this.#isLeaving = true
    await Promise.all(this.#slots.map(slot => slot.end()))
  }
}
