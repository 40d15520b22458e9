import { createInterface } from 'node:readline'

/** The common part of the verifier programs. Each has only what a user has: an issuer, an audience and the package's defaults. */

export interface Trusted {
  issuer: string
  audience: string
}

/** Rejects with the reason if the token is refused. */
export type Verify = (token: string) => Promise<unknown>

/** One line of the input. */
export interface Batch extends Trusted {
  tokens: string[]
  /** How far this process's clock is ahead of the machine's. */
  aheadMs: number
}

let aheadMs = 0
const RealDate = Date

/** Packages expire caches and tokens by `Date`. Their timers are unchanged. */
globalThis.Date = new Proxy(RealDate, {
  construct: (date, args) => Reflect.construct(date, args.length ? args : [RealDate.now() + aheadMs]),
  get: (date, name) => (name === 'now' ? () => RealDate.now() + aheadMs : Reflect.get(date, name)),
})

/** Answers each line with the reasons why the tokens are refused, in order; '' if one is accepted. */
export async function serveVerifier(makeVerifier: (trusted: Trusted) => Promise<Verify>): Promise<void> {
  const verifiers = new Map<string, Verify>()
  for await (const line of createInterface({ input: process.stdin })) {
    const { tokens, ...batch }: Batch = JSON.parse(line)
    aheadMs = batch.aheadMs
    const name = `${batch.issuer} ${batch.audience}`
    const verify = verifiers.get(name) ?? (await makeVerifier(batch))
    verifiers.set(name, verify)
    const reasons = await Promise.all(tokens.map(token => reasonOf(verify(token))))
    process.stdout.write(`${JSON.stringify(reasons)}\n`)
  }
  process.exit()
}

const reasonOf = (verified: Promise<unknown>) =>
  verified.then(
    () => '',
    error => `${error.name}: ${error.message}`,
  )
