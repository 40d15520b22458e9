import { orderEvents } from '../../db/queries/audit-order.ts'
import { OutageLog } from '../lib/outage-log.ts'
import type { Services } from '../services.ts'
import type { OrderWaiters } from './order-waiters.ts'

/** The interval between two runs (ms). An event waits about this long for its position. */
const INTERVAL_MS = 1_000

type SequencerServices = Pick<Services, 'db' | 'clock' | 'log'> & { orderWaiters: OrderWaiters }

/**
 * Assigns positions to the events of the audit, and wakes the requests that wait for them. Every replica runs it, because a run
 * that finds nothing to do costs two small reads, and the database lets one of them work at a time.
 */
export class AuditSequencer {
  readonly #services: SequencerServices
  readonly #outage: OutageLog
  #completeAt: number
  #timer: NodeJS.Timeout | undefined
  #round: Promise<void> | undefined
  #stopped = false

  constructor(services: SequencerServices) {
    this.#services = services
    this.#outage = new OutageLog(services.log, {
      failing: 'audit events get no positions; retrying every second',
      recovered: 'audit events get positions again',
    })
    this.#completeAt = services.clock.monotonic()
  }

  /** Seconds since all committed events were last known to have positions. */
  get lag(): number {
    return (this.#services.clock.monotonic() - this.#completeAt) / 1000
  }

  start() {
    this.#timer = setInterval(() => {
      this.#round ??= this.run().finally(() => {
        this.#round = undefined
      })
    }, INTERVAL_MS)
  }

  /** Orders all events that are committed. Doesn't throw. */
  async run(): Promise<void> {
    const { db, clock, orderWaiters } = this.#services
    try {
      for (let more = true; more && !this.#stopped; ) {
        const sent = clock.monotonic()
        const [run] = await orderEvents(db, {})
        if (run!.complete) this.#completeAt = sent
        more = run!.more
        await orderWaiters.look()
      }
      this.#outage.note(undefined)
    } catch (error) {
      this.#outage.note(error)
      orderWaiters.fail()
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#round
  }
}
