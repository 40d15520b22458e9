import type { Config } from '../config/load.ts'
import type { Failure } from '../exit-codes.ts'
import type { MetricSnapshot } from '../lib/metrics.ts'
import type { Limit } from '../lib/rate-limiter.ts'
import type { StartupSecrets } from '../serve.ts'

/** The calls from a worker to the primary. */
export interface PrimaryHandlers {
  /**
   * The primary reads the settings once, so that a replacement worker has the same, even if a file has changed. Only the
   * credentials are those that the primary has read last.
   */
  settings(): Promise<WorkerSettings>
  /** Tells the primary that this worker will end, and why. */
  failed(failure: Failure): Promise<void>
  /** Counts a try. Returns the seconds to wait if it was one too many. */
  take(tried: { limit: Limit; key: string }): Promise<number | undefined>
  metrics(): Promise<string>
}

export interface WorkerSettings {
  config: Config & StartupSecrets
  /** From 1 to `of`. */
  number: number
  of: number
}

/** The calls from the primary to a worker. */
export interface WorkerHandlers {
  metrics(): Promise<MetricSnapshot>
  /** `pauseMs` as in Served.drain. */
  drain(pauseMs: number): Promise<void>
}
