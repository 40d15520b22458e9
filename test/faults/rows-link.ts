import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../support/process.ts'
import { cutOff, failedPolls, fault, oldest } from './fault.ts'
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

export const linkFaults = [
  fault({
    name: 'TCP black hole',
    lasts: 2.5 * N,
    inject: async stage => linkOf(stage).set({ swallow: true }),
    heal: fair,
    felt: seen => cutOff(seen, VICTIM),
  }),
  fault({
    name: 'half-open',
    lasts: 2 * N,
    async inject(stage) {
      linkOf(stage).halve()
    },
    heal: fair,
    // Its poll waits on a connection that nobody holds at the other end, and gives it up.
    felt: (seen, _, stage) => linkOf(stage).counts.halved > 0 && failedPolls(seen, VICTIM) > 0,
  }),
  fault({
    name: 'resets of 1 %',
    lasts: 0,
    async inject(stage) {
      const { counts, set } = linkOf(stage)
      const earlier = counts.resets
      set({ resets: 0.01 })
      // By chance, so that it lasts until there were some.
      await Promise.all([sleep(3 * N), until('resets', () => counts.resets >= earlier + RESETS, 30_000)])
      return earlier
    },
    heal: fair,
    felt: (_, earlier, stage) => linkOf(stage).counts.resets >= earlier + RESETS,
  }),
  fault({
    name: OF_THE_REVOKER,
    lasts: N,
    async inject({ replicas: [first] }) {
      for (let round = 0; round < 20; round++) {
        first.link.resetAll()
        await sleep(150)
      }
      return first.link.counts.accepted
    },
    heal() {},
    felt: (_, accepted, { replicas }) => accepted > replicas.length,
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
