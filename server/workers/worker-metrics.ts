import { AggregatorRegistry, type Registry } from 'prom-client'
import type { MetricSnapshot } from '../lib/metrics.ts'

/** The metrics of a slot's workers, one after the other. Totals never fall, whatever dies. */
export class WorkerMetrics {
  #ended: MetricSnapshot = []
  #latest: MetricSnapshot = []

  update(metrics: MetricSnapshot): MetricSnapshot[] {
    this.#latest = metrics
    return [this.#ended, metrics]
  }

  /** Returns the last totals, for a worker that doesn't answer. Its gauges are unknown. */
  stale(): MetricSnapshot[] {
    return [this.#ended, selectTotals(this.#latest)]
  }

  /** The worker has ended. The next one counts from zero. */
  async carryOver(): Promise<void> {
    const totals = await aggregate(this.stale()).getMetricsAsJSON()
    this.#ended = totals
    this.#latest = []
  }
}

/** prom-client types this as a number; at run time it is the word of the text format. */
const TOTAL_TYPES = new Set<unknown>(['counter', 'histogram'])

const selectTotals = (metrics: MetricSnapshot) => metrics.filter(({ type }) => TOTAL_TYPES.has(type))

/** Merges metrics of several processes, each metric by its own `aggregator`. */
export const aggregate = (all: MetricSnapshot[]): Registry =>
  AggregatorRegistry.aggregate(all.map(keepOmitted))

/** Some of Node's metrics ask to be omitted. With the label `worker` they can be kept, because no two are the same series. */
const keepOmitted = (metrics: MetricSnapshot): MetricSnapshot =>
  metrics.map(metric => (metric.aggregator === 'omit' ? { ...metric, aggregator: 'first' } : metric))
