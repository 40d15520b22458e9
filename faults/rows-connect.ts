import { openBlackHole } from '../test/support/black-hole.ts'
import { cutOff, failedPolls, fault, polls, type Seen } from './fault.ts'
import { N, type Stage } from './stage.ts'

/** Faults of new connections. A driver that reconnects on its own would open many of them, or wait for them. */

/** The replica that cannot connect. */
const VICTIM = 1
const victimOf = ({ replicas }: Stage) => replicas[VICTIM]!

/** Maximum number of attempts during the fault. A driver that retries at once makes hundreds a second for each call. */
const MOST_ATTEMPTS = 400

/** Resets the link's connections, and leaves SYNs to its port unanswered until the result is closed. */
async function darken({ link }: Stage['replicas'][number]) {
  const port = Number(new URL(link.url).port)
  link.refuse()
  return openBlackHole(port)
}

/** True if it continued to poll through its second host. */
const wentOn = (seen: Seen) => polls(seen)[VICTIM]! > 0 && failedPolls(seen, VICTIM) < polls(seen)[VICTIM]!

export const connectFaults = [
  fault({
    name: 'accepts and closes',
    lasts: 2.5 * N,
    async inject(stage) {
      const { link } = victimOf(stage)
      link.set({ closeNew: true })
      link.resetAll()
      return link.counts.accepted
    },
    heal: stage => victimOf(stage).link.fair(),
    felt(seen, before, stage) {
      const attempts = victimOf(stage).link.counts.accepted - before
      return cutOff(seen, VICTIM) && attempts > 0 && attempts < MOST_ATTEMPTS
    },
  }),
  fault({
    name: 'SYN black hole',
    lasts: 2.5 * N,
    inject: stage => darken(victimOf(stage)),
    async heal(stage, hole) {
      await hole.close()
      await victimOf(stage).link.fair()
    },
    felt: seen => cutOff(seen, VICTIM),
  }),
  fault({
    name: 'first host dead',
    lasts: 2.5 * N,
    async inject(stage) {
      const { link, spare } = victimOf(stage)
      await spare.fair()
      link.refuse()
      return spare.counts.accepted
    },
    heal: backToTheFirst,
    felt: (seen, before, stage) => victimOf(stage).spare.counts.accepted > before && wentOn(seen),
  }),
  fault({
    name: 'first host answers no SYN',
    lasts: 5 * N,
    async inject(stage) {
      const { spare } = victimOf(stage)
      await spare.fair()
      return { hole: await darken(victimOf(stage)), before: spare.counts.accepted }
    },
    async heal(stage, { hole }) {
      await hole.close()
      await backToTheFirst(stage)
    },
    felt: (seen, { before }, stage) => victimOf(stage).spare.counts.accepted > before && wentOn(seen),
  }),
]

async function backToTheFirst(stage: Stage) {
  const { link, spare } = victimOf(stage)
  await link.fair()
  spare.set({ closeNew: true })
  spare.resetAll()
}
