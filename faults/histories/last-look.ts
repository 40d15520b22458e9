import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/process.ts'
import { N, readingOf, type Stage } from '../stage.ts'
import * as asks from './asks.ts'
import { type Call, outcomeOf } from './call.ts'
import { type Client, persist, refresh } from './client.ts'
import { type Random, seeded } from './seeded.ts'
import type { Violation } from './violation.ts'

/** Deadline for full recovery (ms). */
const RECOVERY = 20_000

/**
 * Runs after the last fault has been healed: each client refreshes and verifies what it holds, and presents a token that was
 * ended. This function only checks that every call is answered; `judge` checks the answers.
 */
export async function lastLook(stage: Stage, clients: Client[], seed: number): Promise<Violation[]> {
  await until('every replica polls again', () => pollsAgain(stage), RECOVERY)
  const end = performance.now() + RECOVERY
  const looks = clients.map(me => {
    me.over = () => performance.now() > end
    return lookAt(me, seeded(seed, me.name, 'last'))
  })
  const unknown = (await Promise.all(looks)).flat().filter(call => outcomeOf(call) === 'unknown')
  return unknown.map(call => ({ what: 'unknown long after the last fault', calls: [call], about: [] }))
}

async function pollsAgain({ replicas }: Stage): Promise<boolean> {
  const before = await Promise.all(replicas.map(readingOf))
  await sleep(N)
  const after = await Promise.all(replicas.map(readingOf))
  return after.every(({ failures, polls }, n) => failures === before[n]!.failures && polls > before[n]!.polls)
}

async function lookAt(me: Client, random: Random): Promise<Call[]> {
  const calls: Call[] = []
  for (const session of [...me.sessions]) calls.push(await refresh(me, random, session))
  const strictly = random.chance(0.2)
  const tokens = [...me.sessions.map(({ access }) => access), random.pick(me.board.ended)]
  for (const token of tokens)
    if (token) calls.push((await persist(me, random, () => asks.verify(token, strictly))).call)
  return calls
}
