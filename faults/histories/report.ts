import { type Call, outcomeOf } from './call.ts'
import type { Played } from './play.ts'
import type { Violation } from './violation.ts'

/** Number of violations printed with their history. One cause can produce thousands. */
const TOLD = 5
/** Number of latest calls printed for each history. */
const LATEST = 60

export function report(played: Played): string {
  const { calls, faults, violations, worstStaleness, tried } = played
  return [
    `seed ${played.seed}, ${played.seconds} s, ${played.clients} clients, ${calls.length} calls`,
    ...table(calls),
    `faults: ${[...faults].map(([name, count]) => `${name} ${count}`).join(', ')}`,
    `worst staleness: ${Math.round(worstStaleness)} ms; forbidden tokens presented past the bound: ${tried}`,
    `longest stretches of 503: ${silences(calls)}`,
    `slowest answers: ${slowest(calls)}`,
    `violations: ${violations.length}`,
    ...kindsOf(violations),
    ...merged(violations)
      .slice(0, TOLD)
      .flatMap(violation => told(violation, calls)),
  ].join('\n')
}

const took = ({ sentAt, recordAnswer }: Call) => recordAnswer - sentAt

const kindOf = ({ act }: Call) => ('now' in act && act.now ? 'rotate now' : act.does)

/** Each act with the number of each of its answers. */
const table = (calls: Call[]): string[] =>
  [...Map.groupBy(calls, kindOf)].sort().map(([kind, all]) => `  ${kind}: ${countsOf(all)}`)

/** The slowest three kinds of act. Some take several statements, each with its own deadline. */
function slowest(calls: Call[]): string {
  const kinds = [...Map.groupBy(calls, kindOf)].map(([kind, all]) => ({
    kind,
    most: all.reduce((most, call) => Math.max(most, took(call)), 0),
  }))
  const three = kinds.toSorted((a, b) => b.most - a.most).slice(0, 3)
  return three.map(({ kind, most }) => `${kind} ${Math.round(most)} ms`).join(', ')
}

function countsOf(calls: Call[]): string {
  const kinds = Map.groupBy(calls, call => {
    const no = outcomeOf(call) === 'no' ? ` ${call.error === 'reuse' ? 'reuse' : 'no'}` : ''
    return `${call.status || 'no answer'}${no}`
  })
  return [...kinds]
    .sort()
    .map(([kind, { length }]) => `${kind} ${length}`)
    .join(', ')
}

/** The longest time, per replica, in which verifying there returned only 503. */
function silences(calls: Call[]): string {
  const verified = calls.filter(({ act }) => act.does === 'verify' || act.does === 'introspect')
  const byReplica = [...Map.groupBy(verified, ({ replica }) => replica)].sort()
  return byReplica.map(([replica, own]) => `replica ${replica} ${Math.round(silence(own))} ms`).join(', ')
}

/** From the sending of the first 503 to the first known answer among later requests. */
function silence(calls: Call[]): number {
  let [since, most] = [Number.POSITIVE_INFINITY, 0]
  for (const call of calls.toSorted((a, b) => a.recordAnswer - b.recordAnswer)) {
    if (outcomeOf(call) === 'unknown') since = Math.min(since, call.sentAt)
    else if (call.sentAt > since) {
      most = Math.max(most, call.recordAnswer - since)
      since = Number.POSITIVE_INFINITY
    }
  }
  return most
}

const kindsOf = (violations: Violation[]) =>
  [...Map.groupBy(violations, ({ what }) => what)].map(([what, { length }]) => `  ${what}: ${length}`)

/** Merges repeated violations of the same kind for the same token or session. */
const merged = (violations: Violation[]): Violation[] =>
  [...Map.groupBy(violations, ({ what, detail, about }) => [what, detail, ...about].join(' ')).values()].map(
    alike => ({
      ...alike[0]!,
      calls: alike.flatMap(({ calls }) => calls),
    }),
  )

function told({ what, detail = '', calls, about }: Violation, history: Call[]): string[] {
  const own = history.filter(call => calls.includes(call) || namesOf(call).some(name => about.includes(name)))
  const sorted = own.toSorted((a, b) => a.sentAt - b.sentAt).slice(-LATEST)
  return [`\n${what}: ${about.join(', ')} ${detail}`, ...sorted.map(call => line(call, calls.includes(call)))]
}

const namesOf = ({ act, granted }: Call) =>
  [
    'token' in act && act.token,
    'session' in act && act.session,
    granted?.token,
    granted?.session?.name,
  ].filter(name => typeof name === 'string')

function line(call: Call, shows: boolean): string {
  const { client, replica, act, sentAt, recordAnswer, status, error, active, granted } = call
  const { does, ...how } = act
  const said = { error, active, granted: granted && `${granted.token} ${granted.session?.text ?? ''}` }
  const times = `${sentAt.toFixed(1)}..${recordAnswer.toFixed(1)}`
  return `${shows ? '>' : ' '} ${times} ${client}@${replica} ${does} ${JSON.stringify(how)} -> ${status} ${JSON.stringify(said)}`
}
