import cluster from 'node:cluster'
import type { Config } from '../config/load.ts'
import type { Clock } from '../lib/clock.ts'
import { RateLimitedError } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import { MemoryRateLimiter } from '../lib/rate-limiter.ts'
import { DRAIN_TIMEOUT_MESSAGE, MAX_DRAIN_MS, type StartupSecrets } from '../serve.ts'
import { MetricsAggregator } from './metrics-aggregator.ts'
import type { AskedOfPrimary } from './protocol.ts'
import { Place } from './slot.ts'

export interface PrimaryOptions {
  config: Config & StartupSecrets
  workers: number
  clock: Clock
  log: Log
}

/** Several workers on one port. This process serves nothing itself: it hands on connections, counts tries, and replaces who dies. */
export class Primary {
  #config: Config & StartupSecrets
  readonly #limits = new MemoryRateLimiter()
  readonly #places: Place[]
  readonly #metrics: MetricsAggregator
  readonly #log: Log
  /** That they listen on, once one of them does. */
  #port: number | undefined
  #leaving = false

  constructor({ config, workers, clock, log }: PrimaryOptions) {
    this.#config = config
    this.#log = log
    // In turn: else the system decides, and most connections go to a few. Advanced: keys are bytes.
    cluster.schedulingPolicy = cluster.SCHED_RR
    cluster.setupPrimary({ serialization: 'advanced' })
    const isRightPort = (port: number) => {
      this.#port ??= port
      return port === this.#port
    }
    this.#places = Array.from({ length: workers }, (_, i) => {
      const number = i + 1
      return new Place({ number, clock, log, answers: this.#answers(number, workers), isRightPort })
    })
    this.#metrics = new MetricsAggregator(this.#places)
  }

  get isListening() {
    return this.#places.some(({ isListening }) => isListening)
  }

  /**
   * Resolves with the port once all listen. Throws FailedStart when one can't, and then nobody is left. Never settles when it
   * is drained or ended meanwhile: whoever does that ends the process.
   */
  async start(): Promise<number> {
    try {
      const [port] = await Promise.all(this.#places.map(place => place.taken()))
      return port!
    } catch (error) {
      if (this.#leaving) return new Promise(() => {})
      await this.end()
      throw error
    }
  }

  #answers(number: number, of: number): Omit<AskedOfPrimary, 'failed'> {
    return {
      settings: async () => ({ config: { ...this.#config, port: this.#portToAskFor() }, number, of }),
      take: ({ limit, key }) => this.#take(limit, key),
      metrics: () => this.#metrics.text(),
    }
  }

  /** PORT=0 gives all of them the same free port, until the last one dies: from then on it has to be asked for. */
  #portToAskFor(): number {
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

  /** `pause` as in Served. Resolves with this process's exit code once nobody is left. */
  async drain(pause: number): Promise<number> {
    this.#leaving = true
    this.#log.info('draining')
    const late = setTimeout(() => {
      process.stderr.write(DRAIN_TIMEOUT_MESSAGE)
      void this.end()
    }, pause + MAX_DRAIN_MS)
    const codes = await Promise.all(this.#places.map(place => place.drain(pause)))
    clearTimeout(late)
    this.#log.info('ended')
    return Math.max(...codes)
  }

  async end(): Promise<void> {
    this.#leaving = true
    await Promise.all(this.#places.map(place => place.end()))
  }
}
