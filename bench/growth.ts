import { type Assay, type Installation, install, onPostgres } from './assay.ts'
import { byHttp, type Contender } from './contender.ts'
import type { Stage } from './contenders.ts'
import * as plans from './plans.ts'
import { memoryOf } from './processes.ts'
import type { Customer } from './seed.ts'
import { ratio } from './table.ts'
import type { Rows, Target } from './targets.ts'

/** How cost grows: the same questions, of installations that differ in one thing. */

const CUSTOMERS = [10, 10_000, 1_000_000]
const REVOCATIONS = [0, 10_000, 100_000]
/** Whose tokens are asked about. */
const HOT = [1, 64, 100_000]
/** Sessions, and audit rows, of each of a million customers. */
const EACH = 10
const SESSIONS = 2_048

export async function setGrowth(postgres: string, say: (text: string) => void): Promise<Stage> {
  const make = async (what: string, many: number, known: number): Promise<Made> => {
    say(what)
    const installation = await install(postgres, many, known)
    return { installation, assay: await onPostgres(installation.url) }
  }
  const contenders: Contender[] = []
  const figures: Target[] = []

  for (const many of CUSTOMERS) {
    const { installation, assay } = await make(`${number(many)} customers`, many, Math.min(many, 100_000))
    const known = installation.customers
    const few = known.slice(0, 10)
    contenders.push(byHttp(ofCustomers(many), assay, plans.verify(plans.tokensOf(few))))
    if (many < 1_000_000) continue
    contenders.push(...(await hot(assay, known)), ...claims(assay, few))
    figures.push(await cachedMemory(installation, known))
    contenders.push(...(await large({ installation, assay }, await make('an empty one', 10, 10), few, say)))
  }
  for (const many of REVOCATIONS) {
    const { installation, assay } = await make(`${number(many)} revocations`, 10, 10)
    await revoke(installation, many)
    await heard(assay, many)
    const plan = plans.verify(plans.tokensOf(installation.customers))
    contenders.push(byHttp(`verify, ${number(many)} revocations`, assay, plan))
  }
  figures.push(
    {
      what: 'verify, 1,000,000 customers : 10',
      has: against(ofCustomers(1_000_000), ofCustomers(10)),
      asked: 0.91,
    },
    {
      what: 'verify, 100,000 revocations : none',
      has: against('verify, 100,000 revocations', 'verify, 0 revocations'),
      asked: 0.91,
    },
    {
      what: 'issue, 10,000,000 sessions : an empty table',
      has: against('issue, 10,000,000 sessions', 'issue, no sessions'),
      asked: 0.8,
    },
  )
  return { contenders, figures }
}

const number = (value: number) => value.toLocaleString('en')
const ofCustomers = (many: number) => `verify, ${number(many)} customers`

const against = (a: string, b: string) => (rows: Rows) => {
  const [one, other] = [rows.get(a), rows.get(b)]
  return one && other && ratio(one, other)
}

interface Made {
  installation: Installation
  assay: Assay
}

const hot = async (assay: Assay, known: Customer[]): Promise<Contender[]> =>
  HOT.map(many => {
    const customers = known.slice(0, many)
    const tokens = plans.tokensOf(customers, Math.max(many, 1_024))
    return byHttp(`verify, ${number(many)} customers hot`, assay, plans.verify(tokens))
  })

/** Bytes of JSON that a token carries for its customer. */
const claims = (assay: Assay, customers: Customer[]): Contender[] =>
  [300, 1_900].map(bytes => {
    const tokens = plans.tokensOf(customers, 1_024, { padding: 'x'.repeat(bytes) })
    return byHttp(`verify, claims of ${number(bytes)} bytes`, assay, plans.verify(tokens))
  })

/** Customers that a replica meets in one round. */
const PART = 4_000

/** What a replica's memory grows by when it has met 100,000 customers. */
async function cachedMemory({ url }: Installation, known: Customer[]): Promise<Target> {
  const assay = await onPostgres(url)
  const warm = plans.verify(plans.tokensOf(known.slice(0, 64)))
  await byHttp('warm', assay, warm).round(3)
  const before = memoryOf(assay.pid)
  // In parts that a round gets through: each begins at its first.
  for (let from = 0; from < known.length; from += PART) {
    const part = known.slice(from, from + PART)
    const all = byHttp('all', assay, plans.verify(plans.tokensOf(part, part.length)))
    while ((await cached(assay)) < from + part.length) await all.round(2)
  }
  const grown = memoryOf(assay.pid) - before
  await assay.stop()
  return { what: 'memory of 100,000 cached customers, MB', has: () => grown, asked: 160, most: true }
}

const cached = (assay: Assay) => metric(assay, 'assay_customers_cached')

async function metric({ port, adminToken }: Assay, name: string): Promise<number> {
  const headers = { Authorization: `Bearer ${adminToken}` }
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`, { headers })).text()
  const [, value] = new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'm').exec(text) ?? []
  if (value === undefined) throw new Error(`/metrics has no ${name}`)
  return Number(value)
}

/** The same acts where there are ten million rows, and where there are none. */
async function large(
  { assay, installation }: Made,
  { assay: besides, installation: empty }: Made,
  few: Customer[],
  say: (text: string) => void,
): Promise<Contender[]> {
  for (let each = 1; each <= EACH; each++) {
    say(`sessions and audit rows: ${each} of ${EACH} million`)
    for (const statement of FILL) await installation.query(statement, [each])
  }
  await installation.query('vacuum analyze assay.sessions, assay.audit_events')
  return [
    byHttp('issue, no sessions', besides, plans.issue(empty.customers)),
    byHttp('issue, 10,000,000 sessions', assay, plans.issue(few)),
    byHttp('refresh, no sessions', besides, await plans.refresh(besides.port, empty.customers, SESSIONS)),
    byHttp('refresh, 10,000,000 sessions', assay, await plans.refresh(assay.port, few, SESSIONS)),
  ]
}

/** One more session, and one more event, of every customer. */
const FILL = [
  `insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch, gen,
      issued_at, rotated_at, key_version, access_until, expires_at, ends_at, ip, user_agent)
    select id, substr(translate(md5(id || $1::int), '0189', 'ghij'), 1, 24), 'user-' || $1::int, 'read write', '"bench"', 300,
      0, 0, 1, at, at, 1, at + interval '5 minutes', at + interval '30 days', at + interval '90 days', '127.0.0.1', 'bench'
    from (select id, assay.now() - random() * interval '20 days' as at from assay.customers) made`,
  `insert into assay.audit_events (at, customer_id, type, actor, subject, session_id, ip, user_agent)
    select assay.now() - random() * interval '20 days', id, 'token.issued', 'api_key:bench', 'user-' || $1::int,
      substr(translate(md5(id || $1::int), '0189', 'ghij'), 1, 24), '127.0.0.1', 'bench'
    from assay.customers`,
]

/** Live ones, as though they had been made one by one. */
async function revoke({ query, customers }: Installation, many: number) {
  const statement = `
    insert into assay.revocations (seq, kind, customer_id, key, dead_after)
    select n, 'token', $2, substr(translate(md5(n::text), '0189', 'ghij'), 1, 24), assay.now() + interval '1 day'
    from generate_series(1, $1::int) as n`
  await query(statement, [many, customers[0]!.id])
  await query('update assay.change_feed set seq = seq + $1::int', [many])
}

async function heard(assay: Assay, many: number) {
  while ((await metric(assay, 'assay_revocations')) < many)
    await new Promise(resolve => setTimeout(resolve, 100))
}
