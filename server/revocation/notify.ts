import type { Redis } from '../../db/redis.ts'
import type { RedisNames } from '../lib/redis-names.ts'

/**
 * Notifies the other replicas through Redis of a change, so that they poll at once. A hint contains only which running database
 * has changed, so that a copy doesn't make the original's replicas poll. A lost hint delays the poll by half a second.
 */
export class RedisNotifier {
  readonly #redis: Pick<Redis, 'publish'>
  readonly #names: Pick<RedisNames, 'hints' | 'mark'>
  #sending = false
  #again = false

  constructor(
    redis: Pick<Redis, 'publish' | 'subscribe'>,
    names: Pick<RedisNames, 'hints' | 'mark'>,
    onHint: () => void,
  ) {
    this.#redis = redis
    this.#names = names
    redis.subscribe(names.hints, mark => {
      if (mark === undefined || mark === names.mark()) onHint()
    })
  }

  /** Sends one hint at a time. All changes made while one is being sent share the next. */
  send() {
    this.#again = true
    if (!this.#sending) void this.#drain()
  }

  async #drain() {
    this.#sending = true
    while (this.#again) {
      this.#again = false
      await this.#redis.publish(this.#names.hints, this.#names.mark()).catch(() => {}) // The driver logs it.
    }
    this.#sending = false
  }
}
