import { startPostgres } from '../postgres.ts'
import { machine } from '../report.ts'
import { drillRotations, type Outcome } from './drill.ts'

/** The minimum that the requirement asks for. */
const REQUESTS = 200_000

const say = (line: string) => process.stdout.write(`${line}\n`)

/** Runs the drill and prints its figures. Returns the number of problems. */
export async function runRotations(rotations: number): Promise<number> {
  say(machine())
  const server = await startPostgres()
  const outcome = await drillRotations(server.url, rotations, REQUESTS).finally(() => server.stop())
  for (const line of figures(outcome)) say(line)
  const problems = problemsOf(outcome, rotations)
  for (const problem of problems.slice(0, 20)) say(problem)
  return problems.length
}

/** Describes each problem. Empty if the drill passed. */
export function problemsOf({ findings, versions }: Outcome, rotations: number): string[] {
  const versionsMade = rotations + 1
  return [
    ...findings.failures,
    ...(versions.access === versionsMade && versions.refresh === versionsMade
      ? []
      : [`there are ${versions.access} access and ${versions.refresh} refresh secrets, not ${versionsMade}`]),
    ...(findings.verified.size === versionsMade
      ? []
      : [`tokens of ${findings.verified.size} versions were verified, not ${versionsMade}`]),
    ...(findings.refreshed.has(1) ? [] : ['no session was idle during all rotations']),
  ]
}

function figures({ findings, versions, lasted }: Outcome): string[] {
  const { requests, failures, verified, refreshed, quiet, rotating } = findings
  const failed = (kind: string) => failures.filter(failure => failure.startsWith(kind)).length
  const total = requests.verify + requests.refresh + requests.issue
  return [
    '',
    `${versions.access - 1} rotations of both secrets, ${total} requests in ${Math.round(lasted / 1_000)} s`,
    `  verify: ${requests.verify}, failed ${failed('verify')}`,
    `  refresh: ${requests.refresh}, refused ${failed('refresh')}`,
    `  issue: ${requests.issue}, refused ${failed('issue')}`,
    `tokens of ${verified.size} access versions were verified, of ${refreshed.size} refresh versions refreshed`,
    `verify of other customers without a rotation: ${spread(quiet)}; with one: ${spread(rotating)}`,
  ]
}

function spread(times: number[]): string {
  const sorted = Float64Array.from(times).sort()
  const at = (share: number) => (sorted[Math.floor(sorted.length * share)] ?? Number.NaN).toFixed(2)
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms (${times.length})`
}
