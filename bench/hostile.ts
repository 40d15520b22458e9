import { once } from 'node:events'
import { json } from 'node:stream/consumers'
import postgres from 'postgres'
import { bearer, metric, PASSWORD, post, setSigningAlg } from './api.ts'
import { type Assay, startAssay } from './assay.ts'
import { createDatabase, query } from './database.ts'
import { type Account, type Alg, ATTACKS, newToken, RSA_ATTACK } from './hostile/behaviours.ts'
import type { CrowdPlan, CrowdReport } from './hostile/crowd.ts'
import { LOAD, start } from './processes.ts'
import { markdown, median } from './table.ts'
import { here } from './trees.ts'

/**
 * Measures how hostile callers affect the others. In each round of an attack, 24 well-behaved connections and two quiet ones
 * send requests beside 24 hostile ones. The rounds before and after it have 24 further well-behaved ones instead. Each attack
 * has several rounds, of which the median counts, because a round has only a few hundred requests of the quiet customers and the
 * 99th percentile depends on a handful of them. Half of the well-behaved customers and almost all hostile ones use EdDSA. During the
 * whole run the server's log is a pipe that is not read, and a transaction on the database stays open.
 */

const CONNECTIONS = 24
const ROUNDS = 5
/** The algorithms of 24 well-behaved customers. */
const HALF = Array.from({ length: CONNECTIONS }, (_, i): Alg => (i % 2 === 0 ? 'HS512' : 'EdDSA'))
/** Number of sessions and of audit events for each hostile customer. */
const ROWS = 12_000

const SINGLE = Object.keys(ATTACKS).map(title => ({ title, behaviours: [title] }))
const ALL_AT_ONCE = { title: 'all of these at once', behaviours: Object.keys(ATTACKS) }

/** One round: the latencies of the well-behaved callers, and the server's longest stall. */
interface Round {
  /** The 99th percentile of the quiet customers' /verify, of others' new EdDSA tokens, and of others' /issue (ms). */
  verify: number
  verifyNew: number
  issue: number
  /** The longest event loop delay (ms). */
  stall: number
  statuses: Record<string, number>
}

export async function measureHostile(
  server: string,
  seconds: number,
  only: string[],
  say: (text: string) => void,
) {
  say('customers')
  const url = await createDatabase(server)
  const assay = await startAssay(await here(), { DATABASE_URL: url, TOKENS_PER_MINUTE: '6000' }, 'unread')
  const quiet = await signUpAll(assay, ['HS512', 'EdDSA'])
  const good = await signUpAll(assay, HALF)
  const further = await signUpAll(assay, HALF)
  const hostile = await signUpAll(assay, new Array(CONNECTIONS).fill('EdDSA'))
  const withRsa = await signUpAll(assay, new Array(CONNECTIONS).fill('RS256'))
  await addRows(url, hostile)
  const transaction = await openTransaction(url)
  const measure = (beside: CrowdPlan['members']) => round(assay, seconds, { quiet, good, beside })
  const calm = () => measure(further.map(account => ({ behaviour: 'well-behaved', account })))
  const attacks = [...SINGLE, ALL_AT_ONCE].filter(({ title }) => only.some(text => title.includes(text)))
  const lines: string[][] = []
  await calm()
  for (const { title, behaviours } of attacks) {
    say(title)
    const beside = hostile.map((account, i) => {
      const behaviour = behaviours[i % behaviours.length]!
      return { behaviour, account: behaviour === RSA_ATTACK ? withRsa[i]! : account }
    })
    const [usual, under] = [[await calm()], [] as Round[]]
    for (let i = 0; i < ROUNDS; i++) {
      under.push(await measure(beside))
      usual.push(await calm())
    }
    lines.push(lineOf(title, usual, under))
  }
  await transaction.end()
  await assay.stop()
  return markdown(HEAD, lines)
}

const HEAD = [
  'beside 24 hostile connections',
  '/verify p99',
  'ratio',
  'of new EdDSA tokens',
  'ratio',
  '/issue p99',
  'ratio',
  'longest stall',
  'without them',
  'answers',
]

function lineOf(title: string, usual: Round[], under: Round[]): string[] {
  const of = (key: 'verify' | 'verifyNew' | 'issue') => {
    const [without, beside] = [usual, under].map(rounds => median(rounds.map(round => round[key])))
    return [`${beside!.toFixed(1)} ms`, (beside! / without!).toFixed(2)]
  }
  const stalls = [under, usual].map(rounds => Math.max(...rounds.map(({ stall }) => stall)))
  return [
    title,
    ...of('verify'),
    ...of('verifyNew'),
    ...of('issue'),
    ...stalls.map(stall => `${stall.toFixed(0)} ms`),
    answersOf(under),
  ]
}

function answersOf(rounds: Round[]): string {
  const all: Record<string, number> = {}
  for (const [status, many] of rounds.flatMap(({ statuses }) => Object.entries(statuses)))
    all[status] = (all[status] ?? 0) + many
  return Object.entries(all)
    .map(([status, many]) => `${many} ${status}`)
    .join(', ')
}

async function round(
  assay: Assay,
  seconds: number,
  { quiet, good, beside }: { quiet: Account[]; good: Account[]; beside: CrowdPlan['members'] },
): Promise<Round> {
  await stallOf(assay) // The metric is the maximum since it was last read.
  const plan = (members: CrowdPlan['members']): CrowdPlan => ({ port: assay.port, members, seconds })
  const [ofQuiet, ofGood, ofBeside] = await Promise.all([
    crowd(plan(quiet.map(account => ({ behaviour: 'quiet', account })))),
    crowd(plan(good.map(account => ({ behaviour: 'well-behaved', account })))),
    crowd(plan(beside), ['nice', '-n', '19']),
  ])
  assertAllGood(ofQuiet, ofGood)
  const statuses: Record<string, number> = {}
  for (const { statuses: some } of Object.values(ofBeside))
    for (const [status, many] of Object.entries(some)) statuses[status] = (statuses[status] ?? 0) + many
  return {
    verify: p99(ofQuiet['/verify']!.took),
    verifyNew: p99(ofGood[newToken('EdDSA')]!.took),
    issue: p99(ofGood['/issue']!.took),
    stall: await stallOf(assay),
    statuses,
  }
}

/** All requests of the other callers must succeed during an attack. */
function assertAllGood(...reports: CrowdReport[]) {
  for (const [kind, { statuses }] of reports.flatMap(report => Object.entries(report)))
    if (Object.keys(statuses).join() !== '200')
      throw new Error(`not every ${kind} of the other callers was 200: ${JSON.stringify(statuses)}`)
}

const p99 = (took: number[]) => took.toSorted((a, b) => a - b)[Math.floor(took.length * 0.99)]!

async function stallOf(assay: Assay): Promise<number> {
  return (await metric(assay, /^nodejs_eventloop_lag_max_seconds[ {]/))! * 1000
}

/** `nice` limits it to the CPU time that the others leave, as if it called from another machine. */
async function crowd(plan: CrowdPlan, nice: string[] = []): Promise<CrowdReport> {
  const file = new URL('./hostile/crowd.ts', import.meta.url).pathname
  const child = start(LOAD, [...nice, process.execPath, file], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  child.stdin!.end(JSON.stringify(plan))
  const report = (await json(child.stdout!)) as CrowdReport
  await exited
  return report
}

/** Each account calls from a different address. */
let addresses = 0

/** Signs up one account for each of `algs`. */
async function signUpAll(assay: Assay, algs: Alg[]): Promise<Account[]> {
  const accounts: Account[] = []
  for (const alg of algs) accounts.push(await signUp(assay, `10.1.${++addresses}.1`, alg))
  return accounts
}

/** The server's quota is higher than the number of tokens issued here. */
async function signUp(assay: Assay, address: string, signingAlg: Alg): Promise<Account> {
  const email = `${address}@example.com`
  const from = { 'X-Forwarded-For': address }
  const own = await post(assay.port, '/api/auth/signup', from, { email, password: PASSWORD })
  if (signingAlg !== 'HS512') await setSigningAlg(assay, own.customer.id, signingAlg)
  const session = await post(assay.port, '/issue', bearer(own.api_key), { refresh: true })
  return {
    ...{ email, address, signingAlg },
    apiKey: own.api_key,
    accessToken: own.access_token,
    sessionToken: session.access_token,
    refreshToken: session.refresh_token,
  }
}

/** Adds sessions, half of which have ended, and audit events, as customers have after a long time. */
async function addRows(url: string, accounts: Account[]) {
  const emails = accounts.map(({ email }) => email)
  for (const statement of FILL) await query(url, statement, [emails, ROWS])
  await query(url, 'vacuum analyze assay.sessions, assay.audit_events')
}

const FILL = [
  `insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch, gen,
      issued_at, rotated_at, key_version, access_until, expires_at, ends_at, revoked_at)
    select id, substr(translate(md5(id || n), '0189', 'ghij'), 1, 24), 'user-' || n, 'read', '"bench"', 300, 0, 0, 1, at, at, 1,
      at + interval '5 minutes', at + interval '30 days', at + interval '90 days', case when n % 2 = 0 then at end
    from assay.customers, generate_series(1, $2::int) as n,
      lateral (select assay.now() - random() * interval '20 days' as at) as made where email = any($1)`,
  `insert into assay.audit_events (at, customer_id, type, actor, token_id)
    select assay.now() - random() * interval '20 hours', id, 'token.issued', 'api_key:bench',
      substr(translate(md5(id || n), '0189', 'ghij'), 1, 24)
    from assay.customers, generate_series(1, $2::int) as n where email = any($1)`,
]

/** Keeps Postgres from removing dead rows. */
async function openTransaction(url: string) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  await sql.unsafe('begin isolation level repeatable read')
  await sql.unsafe('select pg_current_xact_id()')
  return sql
}
