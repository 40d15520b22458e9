import { setTimeout as sleep } from 'node:timers/promises'
import type { Victims } from '../fault.ts'
import { N, type Stage } from '../stage.ts'
import type { Call } from './call.ts'
import type { Board, Client } from './client.ts'
import { readFacts } from './facts.ts'
import { CUSTOMERS, gather } from './gather.ts'
import { type Judgement, judge } from './judge.ts'
import { keeperStep } from './keeper.ts'
import { lastLook } from './last-look.ts'
import { Names } from './names.ts'
import { noting } from './noting.ts'
import { seeded } from './seeded.ts'
import { userStep } from './user.ts'
import { startWeather } from './weather.ts'

/** Maximum pause between two steps of a user and of a keeper (ms). */
const REST = 250
const KEEPERS_REST = 6_000
export interface Played extends Judgement, Plan {
  calls: Call[]
  faults: Map<string, number>
}

export interface Plan {
  clients: number
  /** The last fault always runs to its end, even after this time. */
  seconds: number
  /** Determines what each client does in its nth step and the order of the faults, but not how they interleave. */
  seed: number
}

/** Runs random clients and faults, reads everything once more at the end, and judges the history. */
export async function play(stage: Stage, plan: Plan): Promise<Played> {
  const { seconds, seed } = plan
  const [names, calls] = [new Names(), [] as Call[]]
  const send = noting(stage, names, calls)
  const clients = await gather(stage, names, send, plan.clients)
  const run = startClients(clients, seed)
  const weather = startWeather(stage, victimsOf(clients[0]!.board, calls), seed)
  await sleep(seconds * 1_000)
  const faults = await weather.stop()
  await run.stop()
  const unknown = await lastLook(stage, clients, seed)
  const judgement = judge(calls, N, await readFacts(stage, names))
  return { ...plan, calls, faults, ...judgement, violations: [...unknown, ...judgement.violations] }
}

/** The seed determines what a client does in its nth step, but not the state that it finds. */
function startClients(clients: Client[], seed: number) {
  let over = false
  const live = async (me: Client, n: number) => {
    const keeper = n < CUSTOMERS
    const step = keeper ? keeperStep(n === 0) : userStep
    me.over = () => over
    for (let count = 0; !over; count++) {
      const random = seeded(seed, me.name, count)
      await step(me, random)
      await sleep(random.below(keeper ? KEEPERS_REST : REST))
    }
  }
  const all = Promise.all(clients.map(live))
  return {
    async stop() {
      over = true
      await all
    },
  }
}

/** Tokens for faults that write revocations directly to the database. */
function victimsOf(board: Board, calls: Call[]): Victims {
  const take = () => {
    const token = board.recent.shift()
    return token && { name: token.name, access: token.text }
  }
  const revoke: Victims['revoke'] = async (victim, act) => {
    const [sentAt, status] = [performance.now(), await act(victim)]
    calls.push({
      client: 'a writer',
      replica: undefined,
      act: { does: 'revoke token', token: victim.name, wait: false },
      sentAt,
      recordAnswer: performance.now(),
      status: status ?? 503,
    })
  }
  return { take, revoke }
}
