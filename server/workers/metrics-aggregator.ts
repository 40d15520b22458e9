import { Counter, Gauge, Registry } from 'prom-client'
import { ofProcess } from '../lib/metrics.ts'
import type { WorkerSlot } from './slot.ts'
import { aggregate } from './worker-metrics.ts'

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
      help: 'Workers that listen.',
      registers,
      collect() {
        this.set(sum(({ isListening }) => Number(isListening)))
      },
    })
    const total = (name: string, help: string, read: (slot: WorkerSlot) => number) =>
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset()
          this.inc(sum(read))
        },
      })
    total('assay_worker_losses_total', 'Workers that died, and were replaced.', ({ losses }) => losses)
    total(
      'assay_worker_silences_total',
      'Times that a worker did not report its metrics: its gauges were left out, its totals were the last known.',
      ({ silences }) => silences,
    )
  }

  /**
   * In Prometheus' text format. prom-client's own `clusterMetrics` fails as a whole if one worker hangs, and forgets what
   * a dead worker counted.
   */
  async text(): Promise<string> {
    const workers = await Promise.all(this.#slots.map(slot => slot.metrics()))
    return aggregate([await this.#own.getMetricsAsJSON(), ...workers.flat()]).metrics()
  }
}
