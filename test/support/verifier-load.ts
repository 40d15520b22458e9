import type { Verifier } from './local-verifiers.ts'
import type { Customer } from './world.ts'

/** Tokens of several customers, presented to all verifiers without a pause while a test does other things. */

export const AUDIENCE = 'https://orders.example.com'

/** How many new tokens each round has, and how many of the earlier ones are presented again. */
const FRESH = 2
const REPEATED = 6
/** How many tokens of each customer are kept. */
const KEPT = 200

/** One customer's tokens, under the issuer that its verifiers trust. */
export interface Presented {
  customer: Customer
  issuer: string
  /** Tokens of older keys are no longer presented. */
  oldestVersion: number
}

export interface LoadOptions {
  presented: Presented[]
  verifiers: Verifier[]
  aheadMs: () => number
}

const versionOf = (token: string) => {
  const { kid } = JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString())
  return Number(/\.a(\d+)\./.exec(kid)![1])
}

export function startLoad({ presented, verifiers, aheadMs }: LoadOptions) {
  const rounds = new Map(presented.map(one => [one, 0]))
  const accepted = new Map(verifiers.map(({ name }) => [name, 0]))
  const failures: string[] = []
  let counted = Promise.withResolvers<void>()
  let stopped = false

  async function present(one: Presented) {
    let kept: string[] = []
    while (!stopped) {
      const fresh = await issueSeveral(one.customer)
      kept = [...kept, ...fresh].filter(token => versionOf(token) >= one.oldestVersion).slice(-KEPT)
      const tokens = [...kept.slice(-FRESH), ...sample(kept, REPEATED)]
      const batch = { tokens, issuer: one.issuer, audience: AUDIENCE, aheadMs: aheadMs() }
      await Promise.all(verifiers.map(verifier => count(verifier, batch)))
      rounds.set(one, rounds.get(one)! + 1)
      counted.resolve()
      counted = Promise.withResolvers()
    }
  }

  async function count(verifier: Verifier, batch: Parameters<Verifier['verify']>[0]) {
    const reasons = await verifier.verify(batch)
    const refused = reasons.filter(Boolean)
    failures.push(...refused.map(reason => `${verifier.name}: ${reason}`))
    accepted.set(verifier.name, accepted.get(verifier.name)! + reasons.length - refused.length)
  }

  const total = () => [...accepted.values()].reduce((sum, each) => sum + each, 0)
  const running = Promise.all(presented.map(present))
  /** Resolves after so many more verifications, of which a whole round of each customer was begun after this call. */
  async function more(verifications: number) {
    const goal = total() + verifications
    const goals = [...rounds].map(([one, done]) => [one, done + 2] as const)
    const isDone = () => total() >= goal && goals.every(([one, wanted]) => rounds.get(one)! >= wanted)
    while (!isDone() && failures.length === 0) await Promise.race([counted.promise, running])
  }
  async function stop() {
    stopped = true
    await running
    return { failures, accepted: Object.fromEntries(accepted), total: total() }
  }
  return { more, stop }
}

const issueSeveral = (customer: Customer) =>
  Promise.all(Array.from({ length: FRESH }, () => issueOne(customer)))

export async function issueOne({ issue }: Customer, more: object = {}): Promise<string> {
  const { status, json } = await issue({ subject: 'user-1', audience: AUDIENCE, ...more })
  if (status !== 200 && status !== 201) throw new Error(`/issue answered ${status}: ${json.detail}`)
  return json.access_token
}

const sample = <T>(from: T[], count: number) =>
  Array.from({ length: Math.min(count, from.length) }, () => from[Math.floor(Math.random() * from.length)]!)
