import { machine } from '../report.ts'
import { drillKills, type Kill, type Toll } from './drill.ts'
import type { Found, Wrong } from './ledger.ts'

const say = (line: string) => process.stdout.write(`${line}\n`)

/** Runs the drill and prints its figures. Returns the number of problems. */
export async function runKills(kills: number, crashes: number): Promise<number> {
  say(machine())
  let count = 0
  const tell = ({ of, cut, back }: Kill, found: Found[]) => {
    say(`${++count} ${of}: ${cut} calls cut, works again after ${Math.round(back)} ms`)
    for (const { wrong, what } of found) say(`  ${wrong}: ${what}`)
  }
  const toll = await drillKills(kills, crashes, tell)
  for (const line of figures(toll)) say(line)
  const problems = problemsOf(toll)
  for (const problem of problems.slice(0, 20)) say(problem)
  return problems.length
}

/** Describes each problem. Empty if the drill passed. */
export function problemsOf({ ledger, kills }: Toll): string[] {
  const cut = kills.reduce((sum, kill) => sum + kill.cut, 0)
  return [
    ...ledger.wrongs.map(({ wrong, what }) => `${wrong}: ${what}`),
    // A kill may come just after an answer and cut nothing.
    ...(cut < kills.length ? [`${kills.length} kills cut only ${cut} calls, which proves little`] : []),
  ]
}

function figures({ ledger, kills, lasted }: Toll): string[] {
  const of = (name: Kill['of']) => kills.filter(kill => kill.of === name)
  const servers = of('server')
  const processes = servers.reduce((sum, kill) => sum + kill.processes, 0)
  const wrongs = (wrong: Wrong) => ledger.wrongs.filter(found => found.wrong === wrong).length
  const acts = [...ledger.acknowledged].sort(([a], [b]) => a.localeCompare(b))
  const total = acts.reduce((sum, [, count]) => sum + count, 0)
  return [
    '',
    `server killed ${servers.length} times (${processes} processes), Postgres ${of('Postgres').length} times, in ${Math.round(lasted / 1_000)} s`,
    `acknowledged acts: ${total}`,
    ...acts.map(([kind, count]) => `  ${kind}: ${count}${cutOf(ledger.cut.get(kind))}`),
    `time until a replica works again, after a kill of a server: ${spread(servers)}; of Postgres: ${spread(of('Postgres'))}`,
    `calls cut by a kill: ${range(kills.map(({ cut }) => cut))}`,
    `acknowledged facts checked: ${ledger.facts.length}, audit rows: ${ledger.audited.size}`,
    `lost ${wrongs('lost')}, forks ${wrongs('fork')}, logouts ${wrongs('logout')}, odd answers ${wrongs('odd answer')}`,
  ]
}

const cutOf = (counts: { done: number; notDone: number } | undefined) =>
  counts ? `; cut: ${counts.done} had been done, ${counts.notDone} had not` : ''

function spread(kills: Kill[]): string {
  const times = kills.map(({ back }) => Math.round(back)).sort((a, b) => a - b)
  return times.length === 0 ? 'none' : `median ${times[times.length >> 1]} ms, max ${times.at(-1)} ms`
}

function range(counts: number[]): string {
  return `from ${Math.min(...counts)} to ${Math.max(...counts)}, ${counts.reduce((sum, count) => sum + count, 0)} in all`
}
