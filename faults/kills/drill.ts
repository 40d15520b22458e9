import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/process.ts'
import { startPostgres } from '../postgres.ts'
import { ask, makeStage, type Stage, startAgain } from '../stage.ts'
import { callsTo } from './calls.ts'
import { type Crowd, gather } from './crowd.ts'
import { isDead } from './ends.ts'
import { type Found, type Ledger, openLedger } from './ledger.ts'
import { holdTo, reckon } from './reckoning.ts'

/** Of the two servers one, the other, both. */
const VICTIMS = [[0], [1], [0, 1]]
/** From the load's return to the next kill (ms). */
const BETWEEN_KILLS = { least: 200, most: 900 }
/** Then it has failed (ms). */
const LONGEST_AWAY = 60_000
/** Calls under way when the kill comes. */
const UNDER_WAY = 4

export interface Toll {
  ledger: Ledger
  kills: Kill[]
  /** Milliseconds. */
  lasted: number
}

export interface Kill {
  of: 'server' | 'Postgres'
  /** Server processes that it ended. */
  processes: number
  /** Calls that it left without the answer they asked for. */
  cut: number
  /** Until all of its victims had written and verified again (ms). */
  back: number
}

/** Is told of each kill as it was survived. */
type Teller = (kill: Kill, found: Found[]) => void

/**
 * Tokens outlive the drill, so that whatever is refused is refused because it was ended. The bound is the default one: a
 * machine that is busy with kills must not be taken for a link that is cut.
 */
const SETTINGS = {
  ACCESS_TOKEN_TTL: '24h',
  MAX_ACCESS_TOKEN_TTL: '24h',
  MAX_STALENESS: '5s',
  TRUST_PROXY: '127.0.0.1',
}

/** Servers are killed so often and their Postgres crashes so often, under load; then all that was acknowledged is looked for. */
export async function drillKills(kills: number, crashes: number, tell: Teller = () => {}): Promise<Toll> {
  const began = performance.now()
  const server = await startPostgres()
  try {
    const stage = await makeStage({ serverUrl: server.url, server, replicas: 2, settings: SETTINGS })
    const drill = openDrill(stage)
    const done = await drill.run(schedule(kills, crashes), tell).finally(stage.stop)
    return { ledger: drill.ledger, kills: done, lasted: performance.now() - began }
  } finally {
    await server.stop()
  }
}

/** The crashes evenly among the kills. */
function schedule(kills: number, crashes: number): Kill['of'][] {
  const due = (count: number) => Math.floor((count * crashes) / kills)
  return Array.from({ length: kills }, (_, kill): Kill['of'][] => [
    'server',
    ...Array<'Postgres'>(due(kill + 1) - due(kill)).fill('Postgres'),
  ]).flat()
}

function openDrill(stage: Stage) {
  const [calls, ledger] = [callsTo(stage), openLedger()]
  const everyReplica = stage.replicas.map((_, replica) => replica)
  let killed = 0
  let heldTo = 0

  async function run(plan: Kill['of'][], tell: Teller): Promise<Kill[]> {
    const [{ fsync } = { fsync: '' }] = await ask<{ fsync: string }>(stage, 'show fsync')
    if (fsync !== 'on') throw new Error('without fsync a crash shows nothing')
    const crowd = await gather(calls, ledger)
    const done = await killAll(crowd, plan, tell).finally(crowd.disperse)
    await reckon(stage, calls, ledger, crowd)
    return done
  }

  async function killAll(crowd: Crowd, plan: Kill['of'][], tell: Teller): Promise<Kill[]> {
    const done: Kill[] = []
    for (const of of plan) {
      const known = ledger.wrongs.length
      const kill = of === 'server' ? await killServers(crowd) : await crash(crowd)
      tell(kill, ledger.wrongs.slice(known))
      done.push(kill)
    }
    return done
  }

  async function killServers(crowd: Crowd): Promise<Kill> {
    const victims = VICTIMS[killed++ % VICTIMS.length]!
    const killedAt = await midst(victims)
    const replicas = victims.map(victim => stage.replicas[victim]!)
    const ends = replicas.map(({ process }) => process.stop('SIGKILL'))
    crowd.calm(true)
    await Promise.all(ends)
    await Promise.all(replicas.map(startAgain))
    return { of: 'server', processes: victims.length, ...(await aftermath(crowd, victims, killedAt)) }
  }

  async function crash(crowd: Crowd): Promise<Kill> {
    const killedAt = await midst(everyReplica)
    await stage.server!.crash()
    return { of: 'Postgres', processes: 0, ...(await aftermath(crowd, everyReplica, killedAt)) }
  }

  /** A moment at random, in the midst of acts. */
  async function midst(victims: number[]): Promise<number> {
    const { least, most } = BETWEEN_KILLS
    await sleep(least + Math.random() * (most - least))
    await until('calls are under way', () => calls.underWay(victims) >= UNDER_WAY)
    return performance.now()
  }

  async function aftermath(
    crowd: Crowd,
    victims: number[],
    killedAt: number,
  ): Promise<Pick<Kill, 'cut' | 'back'>> {
    await Promise.all(victims.map(serves))
    const back = performance.now() - killedAt
    const recent = ledger.facts.slice(heldTo)
    heldTo += recent.length
    await holdTo(recent, ledger, victims)
    crowd.calm(false)
    return { cut: calls.brokenAt(victims, killedAt), back }
  }

  /** It writes, and knows its own. */
  async function serves(replica: number): Promise<void> {
    const works = async () => {
      const { status, json } = await calls.call('/issue', { replica, bearer: stage.apiKey, json: {} })
      if (status !== 200) return false
      return (await isDead(calls, json.access_token, replica)) === false
    }
    await until(`replica ${replica} serves again`, works, LONGEST_AWAY)
  }

  return { ledger, run }
}
