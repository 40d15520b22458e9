import { AggregatorRegistry, type Registry } from 'prom-client'
import type { MetricSnapshot } from '../lib/metrics.ts'

/** What the workers of one place have counted, one after the other: what was once told is never lost from a total. */
export class WorkerMetrics {
  #ended: MetricSnapshot = []
  #latest: MetricSnapshot = []

  told(numbers: MetricSnapshot): MetricSnapshot[] {
    this.#latest = numbers
    return [this.#ended, numbers]
  }

  /** Its totals stand as they were last; what it measures now isn't known. */
  silent(): MetricSnapshot[] {
    return [this.#ended, totalsOf(this.#latest)]
  }

  /** The worker has ended, and the next will count from nothing. */
  async close(): Promise<void> {
    const whole = await addUp([this.#ended, totalsOf(this.#latest)]).getMetricsAsJSON()
    this.#ended = whole
    this.#latest = []
  }
}

/** The package types this as a number; it is the word of the text format. */
const TOTALS = new Set<unknown>(['counter', 'histogram'])

const totalsOf = (numbers: MetricSnapshot) => numbers.filter(({ type }) => TOTALS.has(type))

/** Each metric by its own `aggregator`. */
export const addUp = (all: MetricSnapshot[]): Registry => AggregatorRegistry.aggregate(all.map(withAll))

/** Node's own bear the worker's label, so that nothing meets its like: none needs to be left out, as some want to be. */
const withAll = (numbers: MetricSnapshot): MetricSnapshot =>
  numbers.map(metric => (metric.aggregator === 'omit' ? { ...metric, aggregator: 'first' } : metric))
