import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/process.ts'
import { startPostgres } from '../postgres.ts'
import { ask, makeStage, type Stage, startAgain } from '../stage.ts'
import { callsTo } from './calls.ts'
import { type Crowd, gather } from './crowd.ts'
import { isDead } from './ends.ts'
import { type Found, type Ledger, openLedger } from './ledger.ts'
import { holdTo, reckon } from './reckoning.ts'

/** The victims in turn: one of the two servers, the other, both. */
const VICTIMS = [[0], [1], [0, 1]]
/** Pause between the end of recovery and the next kill (ms). */
const BETWEEN_KILLS = { least: 200, most: 900 }
/** The drill fails if a replica is unavailable for longer (ms). */
const LONGEST_AWAY = 60_000
/** Minimum number of calls in flight at a kill. */
const UNDER_WAY = 4

export interface Toll {
  ledger: Ledger
  kills: Kill[]
  /** In milliseconds. */
  lasted: number
}

export interface Kill {
  of: 'server' | 'Postgres'
  /** Number of server processes killed. */
  processes: number
  /** Number of calls that got no answer or a 503 because of it. */
  cut: number
  /** Time until all of its victims could write and verify again (ms). */
  back: number
}

/** Called after the servers have recovered from each kill. */
type Teller = (kill: Kill, found: Found[]) => void

/**
 * Tokens outlive the drill, so a token that is refused was ended and did not expire. The staleness bound is the default, so that
 * a machine busy with kills is not mistaken for a lost link.
 */
const SETTINGS = {
  ACCESS_TOKEN_TTL: '24h',
  MAX_ACCESS_TOKEN_TTL: '24h',
  MAX_STALENESS: '5s',
  TRUST_PROXY: '127.0.0.1',
}

/**
 * Kills servers and crashes their Postgres under load, the given number of times each, then checks everything that was
 * acknowledged.
 */
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

/** Distributes the crashes evenly among the kills. */
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
    if (fsync !== 'on') throw new Error('fsync is off, so a crash proves nothing; turn it on')
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

  /** Waits for a random moment at which calls are in flight. */
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

  /** Whether the replica can write and verify its own token. */
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
