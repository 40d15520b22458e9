import type { Column, Policy } from './refresh-cells.ts'

const SECOND = 1_000
const HOUR = 3_600 * SECOND
/** The default REFRESH_GRACE. */
const GRACE = 10 * SECOND
/** REFRESH_TOKEN_TTL and SESSION_MAX_TTL of a random walk. */
export const IDLE = 3 * HOUR
export const IN_ALL = 8 * HOUR

export type Outcome = 'refreshed' | 'renewed' | 'replayed' | 'adopted' | 'kept' | 'reuse_detected' | 'refused'

/** The outcome under the name that the audit uses. */
const AUDITED = { renewed: 'refreshed', kept: 'adopted' } as const

/** A model of the design's refresh table, written from its text. */
export class Model {
  gen = 1
  rotatedAt: number
  previousRotatedAt: number | undefined
  /** -Infinity if the previous token was used up at once. */
  confirmedAt: number | undefined
  ended = false
  expiresAt: number
  readonly endsAt: number
  readonly counts: Partial<Record<string, number>> = {}
  #earlier: Partial<Model> | undefined

  constructor(now: number) {
    this.rotatedAt = now
    this.endsAt = now + IN_ALL
    this.expiresAt = now + IDLE
  }

  present(gen: number, now: number, column: Column): Outcome {
    const outcome = this.#judge(gen, now, column)
    if (outcome === 'refreshed' || outcome === 'adopted') this.#rotate(gen + 1, now, column.policy)
    if (outcome === 'kept') this.#rotate(gen, now, column.policy)
    if (outcome === 'renewed' || outcome === 'kept') this.confirmedAt ??= now
    if (outcome === 'renewed') this.expiresAt = Math.min(now + IDLE, this.endsAt)
    if (outcome === 'reuse_detected') this.ended = true
    const audited = AUDITED[outcome as keyof typeof AUDITED] ?? outcome
    if (outcome !== 'refused') this.counts[audited] = (this.counts[audited] ?? 0) + 1
    return outcome
  }

  #judge(gen: number, now: number, { policy, authenticated }: Column): Outcome {
    const keeps = policy === 'reusable' && authenticated
    if (this.ended || now >= this.expiresAt) return 'refused'
    if (gen === this.gen) return keeps ? 'renewed' : 'refreshed'
    if (gen > this.gen) return keeps ? 'kept' : 'adopted'
    return this.#mayReplay(gen, now, policy) ? 'replayed' : 'reuse_detected'
  }

  #mayReplay(gen: number, now: number, policy: Policy): boolean {
    const within = (since: number | undefined) => since !== undefined && now - since < GRACE
    if (policy === 'strict') return false
    if (gen === this.gen - 2) return within(this.previousRotatedAt)
    if (gen !== this.gen - 1) return false
    if (policy === 'grace_only' && !within(this.rotatedAt)) return false
    return this.confirmedAt === undefined || within(this.confirmedAt)
  }

  /** The state after a failover that loses the commit of the last rotation. */
  goBack(): boolean {
    const earlier = this.#earlier
    this.#earlier = undefined
    if (earlier && !this.ended) Object.assign(this, earlier)
    return earlier !== undefined && !this.ended
  }

  /** The effect of a rotation on earlier tokens holds under every later policy. */
  #rotate(gen: number, now: number, policy: Policy) {
    const { rotatedAt, previousRotatedAt, confirmedAt, expiresAt } = this
    this.#earlier = { gen: this.gen, rotatedAt, previousRotatedAt, confirmedAt, expiresAt }
    const isStrict = policy === 'strict'
    this.gen = gen
    this.previousRotatedAt = isStrict || confirmedAt === Number.NEGATIVE_INFINITY ? undefined : this.rotatedAt
    this.rotatedAt = now
    this.confirmedAt = isStrict ? Number.NEGATIVE_INFINITY : policy === 'grace_only' ? now : undefined
    this.expiresAt = Math.min(now + IDLE, this.endsAt)
  }
}
