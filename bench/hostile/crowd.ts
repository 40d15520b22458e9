import { json } from 'node:stream/consumers'
import { type Account, type Behaviour, behaviourOf } from './behaviours.ts'
import { Caller } from './caller.ts'

/** This process opens connections, each with its behaviour, and writes how long each kind of request took. */

export interface CrowdPlan {
  port: number
  /** One connection each. */
  members: { behaviour: string; account: Account }[]
  seconds: number
}

/** By kind: the latencies (ms) of what was answered, how many answers had each status, and how many never came. */
export type CrowdReport = Record<string, { took: number[]; statuses: Record<string, number> }>

const { port, members, seconds } = (await json(process.stdin)) as CrowdPlan
const report: CrowdReport = {}

function note(kind: string, took: number, status: number | string) {
  report[kind] ??= { took: [], statuses: {} }
  const found = report[kind]
  found.took.push(took)
  found.statuses[status] = (found.statuses[status] ?? 0) + 1
}

async function behave(behaviour: Behaviour, account: Account, end: number) {
  const caller = new Caller(port)
  while (performance.now() < end)
    await behaviour(caller, account, note).catch(error => note('failed', 0, error.code ?? error.message))
}

const end = performance.now() + seconds * 1000
await Promise.all(members.map(({ behaviour, account }) => behave(behaviourOf(behaviour), account, end)))
process.stdout.write(JSON.stringify(report), () => process.exit())
