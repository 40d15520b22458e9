import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../test/support/process.ts'
import { cutOff, failedPolls, fault, oldest } from './fault.ts'
import type { Load } from './load.ts'
import { N, type Stage } from './stage.ts'

/** Faults of one replica's link. The other replicas and clients that revoke are not affected. */

/** The replica whose link fails. */
const VICTIM = 1
const linkOf = ({ replicas }: Stage) => replicas[VICTIM]!.link
const fair = (stage: Stage) => linkOf(stage).fair()

/** Delays in each direction, up to one at which nothing arrives within any deadline (ms). */
const DELAYS = [200, 1_000, 5_000]

/** Tests what the driver does with a statement whose connection is reset: an acknowledgement must still be true. */
export const OF_THE_REVOKER = 'links reset where revocations are made'

/** More than one, because a reset may hit an idle connection, which has no effect. */
const RESETS = 3
/** Number of times that the revoker's link is broken and a revocation is awaited again. */
const ROUNDS = 12

export const linkFaults = [
  fault({
    name: 'TCP black hole',
    lasts: 2.5 * N,
    async inject(stage) {
      linkOf(stage).set({ swallow: true })
      return linkOf(stage).counts.lost
    },
    heal: fair,
    felt: (seen, lost, stage) => linkOf(stage).counts.lost > lost && cutOff(seen, VICTIM),
  }),
  fault({
    name: 'half-open',
    lasts: 2 * N,
    async inject(stage) {
      const { counts, halve } = linkOf(stage)
      const earlier = counts.halved
      halve()
      return counts.halved - earlier
    },
    heal: fair,
    // Its poll waits on a connection whose other end no longer exists, and times out.
    felt: (seen, halved) => halved > 0 && failedPolls(seen, VICTIM) > 0,
  }),
  fault({
    name: 'delay of 200 ms to 5 s',
    lasts: 0,
    async inject(stage) {
      for (const delay of DELAYS) {
        linkOf(stage).set({ delay })
        await sleep(1.5 * N)
      }
    },
    heal: fair,
    // A poll that takes 400 ms is applied late; one that exceeds its deadline is not applied.
    felt: seen => cutOff(seen, VICTIM) && oldest(seen, VICTIM) > 400,
  }),
]

/** Faults that check the outcome of single calls. */
export const callFaults = [
  fault({
    name: 'resets of 1 %',
    lasts: 0,
    async inject(stage, load: Load) {
      const { counts, set } = linkOf(stage)
      const earlier = counts.resets
      set({ resets: 0.01 })
      // Resets are random, so wait until there were some.
      const enough = Promise.all([sleep(2 * N), until('resets', () => counts.resets >= earlier + RESETS)])
      return Promise.all(Array.from({ length: 4 }, () => readUntil(enough, load)))
    },
    heal: fair,
    // Some calls failed and returned 503; others succeeded.
    felt: (_, answers) => answers.flat().includes(503) && answers.flat().includes(200),
  }),
  fault({
    name: 'answers cut short',
    lasts: 0,
    async inject(stage, load: Load) {
      const { counts, set } = linkOf(stage)
      const earlier = counts.resets
      set({ halves: 0.02 })
      const enough = Promise.all([
        sleep(2 * N),
        until('answers cut short', () => counts.resets >= earlier + RESETS),
      ])
      return Promise.all(Array.from({ length: 4 }, () => readUntil(enough, load)))
    },
    heal: fair,
    felt: (_, answers) => answers.flat().includes(503) && answers.flat().includes(200),
  }),
  fault({
    name: OF_THE_REVOKER,
    lasts: 0,
    async inject(stage, load: Load) {
      const statuses: (number | undefined)[] = []
      for (let round = 0; round < ROUNDS; round++) {
        statuses.push(await revokeAsLinkBreaks(stage, load, round % 2 === 0))
        const broken = performance.now()
        await until('a revocation comes through', () => load.acknowledgedSince(broken))
      }
      return statuses
    },
    heal: ({ replicas: [first] }) => first.link.fair(),
    // Callers whose link was broken got a 503.
    felt: (_, statuses) => statuses.filter(status => status === 503).length >= ROUNDS / 2,
  }),
]

/** Sends reads to the victim over the link, one after the other. Returns their statuses. */
async function readUntil(enough: Promise<unknown>, load: Load) {
  const statuses: (number | undefined)[] = []
  let over = false
  const end = enough.finally(() => {
    over = true
  })
  while (!over) statuses.push((await load.call(VICTIM, '/api/sessions', {}))?.status)
  await end
  return statuses
}

/** Breaks the link when the revocation is sent or at a random moment during it, so its answer may be lost. */
async function revokeAsLinkBreaks({ replicas: [first] }: Stage, load: Load, whenSent: boolean) {
  const token = load.take()
  if (!token) return undefined
  if (whenSent) first.link.set({ resetAt: token.subject })
  const status = load.revoke(token, load.revokeToken)
  if (whenSent) return status
  await sleep(Math.random() * 8)
  first.link.resetAll()
  return status
}
