import type { Clock } from '../lib/clock.ts'

/** Both clocks, in milliseconds. */
export type Moment = Record<'monotonic' | 'wall', number>

const EXPIRED: Moment = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY }

/** The time until which a replica may answer without another poll. */
export class Lease {
  readonly #clock: Clock
  readonly #maxStaleness: number
  #end = EXPIRED

  /** `maxStaleness`: N, in milliseconds. */
  constructor(clock: Clock, maxStaleness: number) {
    this.#clock = clock
    this.#maxStaleness = maxStaleness
  }

  /** Read before a poll is sent: the lease starts at the earliest moment that the poll's snapshot can be from. */
  moment(): Moment {
    return { monotonic: this.#clock.monotonic(), wall: this.#clock.wall() }
  }

  /** Whether it is valid by both clocks: the wall clock may be set, the monotonic one stops during sleep. */
  isValid(): boolean {
    return this.#clock.monotonic() < this.#end.monotonic && this.#clock.wall() < this.#end.wall
  }

  renew(sent: Moment) {
    this.#end = { monotonic: sent.monotonic + this.#maxStaleness, wall: sent.wall + this.#maxStaleness }
  }

  expire() {
    this.#end = EXPIRED
  }
}
