import { Counter, Gauge, Registry } from 'prom-client'
import { ofProcess } from '../lib/metrics.ts'
import type { Place } from './slot.ts'
import { addUp } from './worker-metrics.ts'

/** The numbers of all workers, and the primary's own. */
export class MetricsAggregator {
  readonly #own = new Registry()
  readonly #places: readonly Place[]

  constructor(places: readonly Place[]) {
    this.#places = places
    ofProcess(this.#own, 'primary')
    const sum = (of: (place: Place) => number) => places.reduce((total, place) => total + of(place), 0)
    const registers = [this.#own]
    new Gauge({
      name: 'assay_workers',
      help: 'Workers that listen.',
      registers,
      collect() {
        this.set(sum(({ isListening }) => Number(isListening)))
      },
    })
    const total = (name: string, help: string, of: (place: Place) => number) =>
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset()
          this.inc(sum(of))
        },
      })
    total('assay_worker_losses_total', 'Workers that died, and were replaced.', ({ losses }) => losses)
    total(
      'assay_worker_silences_total',
      'Times that a worker did not tell its numbers: its gauges were left out, its totals were the last known.',
      ({ silences }) => silences,
    )
  }

  async text(): Promise<string> {
    const told = await Promise.all(this.#places.map(place => place.numbers()))
    return addUp([await this.#own.getMetricsAsJSON(), ...told.flat()]).metrics()
  }
}
