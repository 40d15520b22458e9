import type { Policy } from './refresh-cells.ts'

const SECOND = 1_000
const HOUR = 3_600 * SECOND
/** REFRESH_GRACE, by default. */
const GRACE = 10 * SECOND
/** REFRESH_TOKEN_TTL and SESSION_MAX_TTL of a walk. */
export const IDLE = 3 * HOUR
export const IN_ALL = 8 * HOUR

export type Outcome = 'refreshed' | 'replayed' | 'adopted' | 'reuse_detected' | 'refused'

/** The design's table of refresh, written from its words. */
export class Model {
  gen = 1
  rotatedAt: number
  previousRotatedAt: number | undefined
  confirmedAt: number | undefined
  ended = false
  expiresAt: number
  readonly policy: Policy
  readonly endsAt: number
  readonly counts: Partial<Record<Outcome, number>> = {}
  #earlier: Partial<Model> | undefined

  constructor(policy: Policy, now: number) {
    this.policy = policy
    this.rotatedAt = now
    this.endsAt = now + IN_ALL
    this.expiresAt = now + IDLE
  }

  present(gen: number, now: number): Outcome {
    const outcome = this.#judge(gen, now)
    if (outcome === 'refreshed' || outcome === 'adopted') this.#rotate(gen, now)
    if (outcome === 'reuse_detected') this.ended = true
    if (outcome !== 'refused') this.counts[outcome] = (this.counts[outcome] ?? 0) + 1
    return outcome
  }

  #judge(gen: number, now: number): Outcome {
    if (this.ended || now >= this.expiresAt) return 'refused'
    if (gen === this.gen) return 'refreshed'
    if (gen > this.gen) return 'adopted'
    return this.#mayReplay(gen, now) ? 'replayed' : 'reuse_detected'
  }

  #mayReplay(gen: number, now: number): boolean {
    const within = (since: number | undefined) => since !== undefined && now - since < GRACE
    if (this.policy === 'strict') return false
    if (gen === this.gen - 2) return within(this.previousRotatedAt)
    if (gen !== this.gen - 1) return false
    if (within(this.rotatedAt)) return true
    return this.policy === 'until_confirmed' && (this.confirmedAt === undefined || within(this.confirmedAt))
  }

  /** What a failover that loses the last rotation's commit brings back. */
  goBack(): boolean {
    const earlier = this.#earlier
    this.#earlier = undefined
    if (earlier && !this.ended) Object.assign(this, earlier)
    return earlier !== undefined && !this.ended
  }

  #rotate(gen: number, now: number) {
    const { rotatedAt, previousRotatedAt, confirmedAt, expiresAt } = this
    this.#earlier = { gen: this.gen, rotatedAt, previousRotatedAt, confirmedAt, expiresAt }
    this.gen = gen + 1
    this.previousRotatedAt = this.rotatedAt
    this.rotatedAt = now
    this.confirmedAt = undefined
    this.expiresAt = Math.min(now + IDLE, this.endsAt)
  }
}
