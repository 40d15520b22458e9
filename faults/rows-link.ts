import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../test/support/process.ts'
import { cutOff, failedPolls, fault, oldest } from './fault.ts'
import type { Load } from './load.ts'
import { N, type Stage } from './stage.ts'

/** Faults of one replica's link. Its neighbours, and whoever revokes, don't notice. */

/** Which replica's link it is. */
const VICTIM = 1
const linkOf = ({ replicas }: Stage) => replicas[VICTIM]!.link
const fair = (stage: Stage) => linkOf(stage).fair()

/** Each both ways, rising to where nothing arrives within any deadline (ms). */
const DELAYS = [200, 1_000, 5_000]

/** What the driver makes of a statement whose connection is reset: an acknowledgement must still be one. */
export const OF_THE_REVOKER = 'links reset where revocations are made'

/** One may hit an idle connection, which costs nothing. */
const RESETS = 3
/** Of breaking the revoker's link and seeing a revocation come through again. */
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
    // Its poll waits on a connection that nobody holds at the other end, and gives it up.
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
    // A poll that takes 400 ms is applied late, one that takes longer than its deadline not at all.
    felt: seen => cutOff(seen, VICTIM) && oldest(seen, VICTIM) > 400,
  }),
]

/** Those that look at what becomes of single calls. */
export const callFaults = [
  fault({
    name: 'resets of 1 %',
    lasts: 0,
    async inject(stage, load: Load) {
      const { counts, set } = linkOf(stage)
      const earlier = counts.resets
      set({ resets: 0.01 })
      // By chance, so that it lasts until there were some.
      const enough = Promise.all([
        sleep(2 * N),
        until('resets', () => counts.resets >= earlier + RESETS, 30_000),
      ])
      return Promise.all(Array.from({ length: 4 }, () => readUntil(enough, load)))
    },
    heal: fair,
    // Calls were hit, and their callers told; others came through.
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
        until('answers cut short', () => counts.resets >= earlier + RESETS, 30_000),
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
        await until('a revocation comes through', () => load.acknowledgedSince(broken), 15_000)
      }
      return statuses
    },
    heal: ({ replicas: [first] }) => first.link.fair(),
    // Whoever was cut off was told so.
    felt: (_, statuses) => statuses.filter(status => status === 503).length >= ROUNDS / 2,
  }),
]

/** Reads of the victim's over the link, one after the other. Answers their statuses. */
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

/** The link breaks as the revocation is sent, or at some moment of it: its answer may be lost. */
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
