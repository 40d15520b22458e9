import type { Redis } from '../../db/redis.ts'
import type { KeyRing } from '../crypto/key-ring.ts'

/**
 * Tells the other replicas through Redis that something has changed, so that they poll at once. A hint says nothing else,
 * and losing one costs half a second.
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

  /** One under way at a time; whatever changes meanwhile is one more. */
  send() {
    this.#again = true
    if (!this.#sending) void this.#drain()
  }

  async #drain() {
    this.#sending = true
    while (this.#again) {
      this.#again = false
      await this.#redis.publish(this.#channel).catch(() => {}) // Told by the driver.
    }
    this.#sending = false
  }
}
