import type { Redis } from '../../db/redis.ts'
import type { KeyRing } from '../crypto/key-ring.ts'

/**
 * Notifies the other replicas through Redis of a change, so that they poll at once. A hint contains nothing
 * else, and a lost one costs half a second.
 */
export class RedisNotifier {
  readonly #redis: Pick<Redis, 'publish'>
  readonly #channel: string
  #sending = false
  #again = false

  constructor(
    redis: Pick<Redis, 'publish' | 'subscribe'>,
    keyRing: Pick<KeyRing, 'installationId'>,
    onHint: () => void,
  ) {
    this.#redis = redis
    this.#channel = `assay:${keyRing.installationId}:hints`
    redis.subscribe(this.#channel, onHint)
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
      await this.#redis.publish(this.#channel).catch(() => {}) // The driver logs it.
    }
    this.#sending = false
  }
}
