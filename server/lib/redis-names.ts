import type { KeyRing } from '../crypto/key-ring.ts'
import { installationMac } from '../crypto/mac.ts'

/**
 * Names in Redis. Everything but the channel for hints belongs to one running database (`Position.timeline`) and not only
 * to the installation: a copy of the database has the same installation id and key, and may be given the same Redis.
 */
export class RedisNames {
  readonly #keyRing: Pick<KeyRing, 'installationId' | 'installationKey'>
  readonly #timeline: () => string | undefined

  constructor(
    keyRing: Pick<KeyRing, 'installationId' | 'installationKey'>,
    timeline: () => string | undefined,
  ) {
    this.#keyRing = keyRing
    this.#timeline = timeline
  }

  /** Identifies the running database without naming it. During a reload, for milliseconds, it identifies none. */
  mark(timeline = this.#timeline()): string {
    return installationMac(this.#keyRing.installationKey, 'running database', timeline ?? '', 10)
  }

  /** The name of a customer's record that was read on `timeline`, or would be read now. */
  record(customerId: string, timeline?: string) {
    return `${this.#prefix}:record:${this.mark(timeline)}:${customerId}`
  }

  /** The prefix of the counts of one limit. A key has the mark too. */
  limit(name: string) {
    return `${this.#prefix}:limit:${name}`
  }

  /** Hashes the key, so that Redis sees neither emails nor addresses. */
  limitKey(key: string) {
    return `${this.mark()}:${installationMac(this.#keyRing.installationKey, 'limit', key, 16)}`
  }

  /** One channel for all copies: a hint carries the mark, so a replica needs no new subscription after a failover. */
  get hints() {
    return `${this.#prefix}:hints`
  }

  get #prefix() {
    return `assay:${this.#keyRing.installationId}`
  }
}
