import type { Config } from '../config/load.ts'
import type { Failure } from '../exit-codes.ts'
import type { MetricSnapshot } from '../lib/metrics.ts'
import type { Limit } from '../lib/rate-limiter.ts'
import type { StartupSecrets } from '../serve.ts'

/** What a worker asks of the primary. */
export interface AskedOfPrimary {
  /** Read once, by the primary: a worker that takes another's place has the same, whatever became of files meanwhile. */
  settings(): Promise<{ config: Config & StartupSecrets; number: number; of: number }>
  /** Told, rather than asked: this worker will end, for this reason. */
  failed(failure: Failure): Promise<void>
  /** Counts a try; answers seconds to wait if it was one too many. */
  take(tried: { limit: Limit; key: string }): Promise<number | undefined>
  metrics(): Promise<string>
}

/** What the primary asks of a worker. */
export interface AskedOfWorker {
  metrics(): Promise<MetricSnapshot>
  /** Told: `pause` as in Served. */
  drain(pause: number): Promise<void>
}
