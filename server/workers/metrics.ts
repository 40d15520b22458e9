import { AggregatorRegistry, Gauge, Registry } from 'prom-client'
import { counterIn, type MetricSnapshot, ofProcess } from '../lib/metrics.ts'
import type { WorkerSlot } from './slot.ts'

/** The metrics of all workers and of the primary. */
export class MetricsAggregator {
  readonly #own = new Registry()
  readonly #slots: readonly WorkerSlot[]

  constructor(slots: readonly WorkerSlot[]) {
    this.#slots = slots
    ofProcess(this.#own, 'primary')
    const sum = (read: (slot: WorkerSlot) => number) => slots.reduce((total, slot) => total + read(slot), 0)
    const registers = [this.#own]
    new Gauge({
      name: 'assay_workers',
      help: 'Workers that are listening.',
      registers,
      collect() {
        this.set(sum(({ isListening }) => Number(isListening)))
      },
    })
    const total = counterIn(registers)
    total('assay_worker_losses_total', 'Workers that died and were replaced.', () =>
      sum(({ losses }) => losses),
    )
    total(
      'assay_worker_silences_total',
      'Times that a worker did not report its metrics. Its gauges are then omitted, and its totals are the last known ones.',
      () => sum(({ silences }) => silences),
    )
  }

  /**
   * In Prometheus' text format. prom-client's own `clusterMetrics` fails as a whole if one worker hangs, and loses the counts of
   * dead workers.
   */
  async text(): Promise<string> {
    const workers = await Promise.all(this.#slots.map(slot => slot.metrics()))
    return aggregate([await this.#own.getMetricsAsJSON(), ...workers.flat()]).metrics()
  }
}

/** The metrics of a slot's workers, one after the other. Totals never fall, even if workers die. */
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

  /** Called when the worker has ended. The next one counts from zero. */
  async carryOver(): Promise<void> {
    const totals = await aggregate(this.stale()).getMetricsAsJSON()
    this.#ended = totals
    this.#latest = []
  }
}

/** prom-client types this as a number; at run time it is the type's name in the text format. */
const TOTAL_TYPES = new Set<unknown>(['counter', 'histogram'])

const selectTotals = (metrics: MetricSnapshot) => metrics.filter(({ type }) => TOTAL_TYPES.has(type))

/** Merges metrics of several processes, each metric by its own `aggregator`. */
const aggregate = (all: MetricSnapshot[]): Registry => AggregatorRegistry.aggregate(all.map(keepOmitted))

/** Some of Node's metrics ask to be omitted. With the label `worker` they can be kept, because no two are the same series. */
const keepOmitted = (metrics: MetricSnapshot): MetricSnapshot =>
  metrics.map(metric => (metric.aggregator === 'omit' ? { ...metric, aggregator: 'first' } : metric))
