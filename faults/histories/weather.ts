import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/process.ts'
import { type Fault, fault, type Victims } from '../fault.ts'
import { backendFaults } from '../rows-backends.ts'
import { linkFaults } from '../rows-link.ts'
import { replicaFaults } from '../rows-replica.ts'
import { serverFaults } from '../rows-server.ts'
import { writerFaults } from '../rows-writers.ts'
import { ask, N, type Stage } from '../stage.ts'
import { type Random, seeded } from './seeded.ts'

/** Time that the open transaction stays open (ms). */
const HELD = 5_000
/** Pause between two faults of a lane: the first value, plus up to the second (ms). */
const LULL = 300
const MORE_LULL = 2_500
/** Deadline for the database to be back after a crash or restart (ms). */
const BACK = 20_000

type Weather = Fault<unknown, Victims>

/** Applies to the replicas that no client asks to revoke. */
const RESETS = fault({
  name: 'resets of 1 %',
  lasts: 2 * N,
  async inject({ replicas }) {
    for (const { link } of replicas.slice(1)) link.set({ resets: 0.01 })
  },
  heal({ replicas }) {
    for (const { link } of replicas.slice(1)) link.fair()
  },
  felt: () => true, // A history is judged by its answers alone.
})

/** One lane of link faults and one of all other faults. Each lane runs one fault at a time, so two faults can overlap. */
const lanes = (stage: Stage): Weather[][] => [
  [...linkFaults, RESETS],
  [...backendFaults, ...replicaFaults, ...serverFaults, ...writerFaults(HELD)].filter(
    row => !row.ownServer || stage.server,
  ),
]

/** Injects and heals faults until stopped; then returns how often each occurred. */
export function startWeather(stage: Stage, victims: Victims, seed: number) {
  const counts = new Map<string, number>()
  let over = false

  async function suffer(fault: Weather) {
    counts.set(fault.name, (counts.get(fault.name) ?? 0) + 1)
    const mark = await fault.inject(stage, victims)
    await sleep(fault.lasts)
    await fault.heal(stage, mark)
  }

  async function lane(faults: Weather[], random: Random) {
    await sleep(random.below(LULL))
    while (!over) {
      await suffer(random.pick(faults)!)
      await sleep(LULL + random.below(MORE_LULL))
      await until('the database answers', () => steady(stage), BACK)
    }
  }

  const done = Promise.all(lanes(stage).map((faults, n) => lane(faults, seeded(seed, 'weather', n))))
  return {
    async stop() {
      over = true
      await done
      return counts
    },
  }
}

/** Requires several answers in a row: a busy machine may notice a crash only after it has answered once more. */
async function steady(stage: Stage): Promise<boolean> {
  for (let asked = 0; asked < 5; asked++) {
    if (!(await answers(stage))) return false
    await sleep(200)
  }
  return true
}

const answers = (stage: Stage) =>
  ask(stage, 'select 1').then(
    () => true,
    () => false,
  )
