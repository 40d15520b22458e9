import { headerOf } from './local.ts'
import type { Verifier } from './local-verifiers.ts'
import type { Customer } from './world.ts'

/** Continuously presents tokens of several customers to all verifiers while a test does other things. */

export const AUDIENCE = 'https://orders.example.com'

/** How many new tokens each round has, and how many earlier ones are presented again. */
const FRESH = 2
const REPEATED = 6
/** How many tokens of each key are kept to be presented again. */
const KEPT = 20

/** One customer's tokens, with the issuer that its verifiers trust. */
export interface Presented {
  customer: Customer
  issuer: string
  /** Tokens of older keys are no longer presented. */
  oldestVersion: number
}

export class VerifierLoad {
  readonly #verifiers: Verifier[]
  readonly #aheadMs: () => number
  /** By verifier name. */
  readonly accepted: Map<string, number>
  readonly failures: string[] = []
  /** How many rounds each customer has completed. */
  readonly #rounds: Map<Presented, number>
  readonly #running: Promise<unknown>
  #round = Promise.withResolvers<void>()
  #stopped = false

  /** `aheadMs`: how far the verifiers' clocks are ahead. */
  constructor(presented: Presented[], verifiers: Verifier[], aheadMs: () => number) {
    this.#verifiers = verifiers
    this.#aheadMs = aheadMs
    this.accepted = new Map(verifiers.map(({ name }) => [name, 0]))
    this.#rounds = new Map(presented.map(one => [one, 0]))
    this.#running = Promise.all(presented.map(one => this.#present(one)))
    this.#running.catch(() => {}) // Waiting callers get the error.
  }

  /**
   * Resolves after this many more verifications by each verifier, including a whole round of each customer that began
   * after the call. Throws if a token was refused.
   */
  async continue(verifications: number): Promise<void> {
    const goal = this.#total() + verifications * this.#verifiers.length
    const goals = [...this.#rounds].map(([one, rounds]) => [one, rounds + 2] as const)
    const isDone = () =>
      this.#total() >= goal && goals.every(([one, rounds]) => this.#rounds.get(one)! >= rounds)
    while (!isDone()) {
      await Promise.race([this.#round.promise, this.#running])
      if (this.failures.length > 0) throw new Error(`tokens were refused: ${this.failures.join('\n')}`)
    }
  }

  /** Resolves when the last round is over. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  async #present(one: Presented) {
    let kept: string[] = []
    while (!this.#stopped) {
      const fresh = await issueSeveral(one.customer)
      const tokens = [...fresh, ...spread(kept)].filter(token => versionOf(token) >= one.oldestVersion)
      const batch = { tokens, issuer: one.issuer, audience: AUDIENCE, aheadMs: this.#aheadMs() }
      await Promise.all(this.#verifiers.map(verifier => this.#verify(verifier, batch)))
      kept = keep(kept, fresh)
      this.#endRound(one)
    }
  }

  async #verify(verifier: Verifier, batch: Parameters<Verifier['verify']>[0]) {
    const reasons = await verifier.verify(batch)
    const refused = reasons.filter(Boolean)
    this.failures.push(...refused.map(reason => `${verifier.name}: ${reason}`))
    const before = this.accepted.get(verifier.name)!
    this.accepted.set(verifier.name, before + reasons.length - refused.length)
  }

  #endRound(one: Presented) {
    this.#rounds.set(one, this.#rounds.get(one)! + 1)
    this.#round.resolve()
    this.#round = Promise.withResolvers()
  }

  #total = () => [...this.accepted.values()].reduce((sum, each) => sum + each, 0)
}

const versionOf = (token: string) => Number(/\.a(\d+)\./.exec(headerOf(token).kid)![1])

const keep = (kept: string[], fresh: string[]) => {
  const ofKey = kept.filter(token => versionOf(token) === versionOf(fresh[0]!))
  return ofKey.length < KEPT ? [...kept, ...fresh] : kept
}

/** Picks tokens evenly, from the first to one of the last. */
const spread = (kept: string[]) =>
  kept.filter((_, index) => index % Math.max(1, Math.ceil(kept.length / REPEATED)) === 0)

const issueSeveral = (customer: Customer) =>
  Promise.all(Array.from({ length: FRESH }, () => issueOne(customer)))

export async function issueOne({ issue }: Customer, more: object = {}): Promise<string> {
  const { status, json } = await issue({ subject: 'user-1', audience: AUDIENCE, ...more })
  if (status !== 200) throw new Error(`/issue answered ${status}: ${json.detail}`)
  return json.access_token
}
