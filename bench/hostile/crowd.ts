import { json } from 'node:stream/consumers'
import { type Account, type Behaviour, behaviourOf } from './behaviours.ts'
import { Caller } from './caller.ts'

/** This process opens connections, each with its behaviour, and prints the latencies of each kind of request. */

export interface CrowdPlan {
  port: number
  /** Each member has one connection. */
  members: { behaviour: string; account: Account }[]
  seconds: number
}

/** By kind: the latencies of the answers (ms), and the number of answers by status. A missing answer is counted by its error. */
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
