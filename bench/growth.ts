import { issueTokens, metric } from './api.ts'
import { type Assay, startAssay } from './assay.ts'
import { byHttp, type Contender } from './contender.ts'
import type { Figures } from './figures.ts'
import * as plans from './plans.ts'
import { memoryOf } from './processes.ts'
import { type Installation, install, type SeededCustomer, tokensOf } from './seed.ts'
import { figure, fixed, part, type Target } from './targets.ts'
import { here } from './trees.ts'

/** Measures how cost grows: the same requests to installations that differ in one property. */

const CUSTOMERS = [10, 10_000, 1_000_000]
const REVOCATIONS = [0, 10_000, 100_000]
/** Number of customers whose tokens are verified. */
const HOT = [1, 64, 100_000]
/** Number of sessions and of audit rows for each of a million customers. */
const EACH = 10
const SESSIONS = 2_048

export async function setGrowth(postgres: string, say: (text: string) => void) {
  const make = async (what: string, many: number, known: number): Promise<Made> => {
    say(what)
    const installation = await install(postgres, many, known)
    return { installation, assay: await startOn(installation.url) }
  }
  const contenders: Contender[] = []
  const figures: Figures[] = []

  for (const many of CUSTOMERS) {
    const { installation, assay } = await make(`${number(many)} customers`, many, Math.min(many, 100_000))
    const known = installation.customers
    const few = known.slice(0, 10)
    contenders.push(byHttp(ofCustomers(many), verifying(assay, tokensOf(few, plans.MIX))))
    if (many < 1_000_000) continue
    contenders.push(...(await hot(assay, known)), ...claims(assay, few))
    figures.push(cachedMemory(installation, known))
    contenders.push(...(await large({ installation, assay }, await make('an empty one', 10, 10), few, say)))
  }
  for (const many of REVOCATIONS) {
    const { installation, assay } = await make(`${number(many)} revocations`, 10, 10)
    await revoke(installation, many)
    await heard(assay, many)
    const tokens = tokensOf(installation.customers, plans.MIX)
    contenders.push(byHttp(`verify, ${number(many)} revocations`, verifying(assay, tokens)))
  }
  return { contenders, figures, targets: TARGETS }
}

const startOn = async (url: string) => startAssay(await here(), { DATABASE_URL: url })

const number = (value: number) => value.toLocaleString('en')
const ofCustomers = (many: number) => `verify, ${number(many)} customers`

const MEMORY = 'memory of 100,000 cached customers, MB'
const TARGETS: Target[] = [
  { what: MEMORY, measured: figure(MEMORY), asked: fixed(160), most: true },
  {
    what: 'verify, 1,000,000 customers : 10',
    measured: part(ofCustomers(1_000_000), ofCustomers(10)),
    asked: fixed(0.91),
  },
  {
    what: 'verify, 100,000 revocations : none',
    measured: part('verify, 100,000 revocations', 'verify, 0 revocations'),
    asked: fixed(0.91),
  },
  {
    what: 'issue, 10,000,000 sessions : an empty table',
    measured: part('issue, 10,000,000 sessions', 'issue, no sessions'),
    asked: fixed(0.8),
  },
]

interface Made {
  installation: Installation
  assay: Assay
}

const hot = async (assay: Assay, known: SeededCustomer[]): Promise<Contender[]> =>
  HOT.map(many => {
    const customers = known.slice(0, many)
    const tokens = tokensOf(customers, Math.max(many, 1_024))
    return byHttp(`verify, ${number(many)} customers hot`, verifying(assay, tokens))
  })

/** Bytes of JSON in the claims that a token carries for its customer. */
const claims = (assay: Assay, customers: SeededCustomer[]): Contender[] =>
  [300, 1_900].map(bytes => {
    const tokens = tokensOf(customers, 1_024, { padding: 'x'.repeat(bytes) })
    return byHttp(`verify, claims of ${number(bytes)} bytes`, verifying(assay, tokens))
  })

/** Number of customers that a replica reads in one round. */
const PART = 4_000

/** Measures the memory that a replica needs for 100,000 customers. */
const cachedMemory = ({ url }: Installation, known: SeededCustomer[]): Figures => ({
  names: [MEMORY],
  async measure() {
    const assay = await startOn(url)
    await byHttp('warm', verifying(assay, tokensOf(known.slice(0, 64), plans.MIX))).round(3)
    const before = memoryOf(assay.pid)
    // Each part fits in one round, because every round starts at the first token of its plan.
    for (let from = 0; from < known.length; from += PART) {
      const some = known.slice(from, from + PART)
      const all = byHttp('all', verifying(assay, tokensOf(some, some.length)))
      while ((await cached(assay)) < from + some.length) await all.round(2)
    }
    const grown = memoryOf(assay.pid) - before
    await assay.stop()
    return [[MEMORY, grown]]
  },
})

const verifying = (target: Assay, tokens: string[]) => async () => ({ target, plan: plans.verify(tokens) })

const cached = async (assay: Assay) => (await metric(assay, /^assay_customers_cached[ {]/))!

/** The same acts on tables with ten million rows and on empty ones. */
async function large(
  { assay, installation }: Made,
  { assay: besides, installation: empty }: Made,
  few: SeededCustomer[],
  say: (text: string) => void,
): Promise<Contender[]> {
  for (let each = 1; each <= EACH; each++) {
    say(`sessions and audit rows: ${each} of ${EACH} million`)
    for (const statement of FILL) await installation.query(statement, [each])
  }
  await installation.query('vacuum analyze assay.sessions, assay.audit_events')
  return [...writing('no sessions', besides, empty.customers), ...writing('10,000,000 sessions', assay, few)]
}

const writing = (rows: string, target: Assay, customers: SeededCustomer[]): Contender[] => [
  byHttp(`issue, ${rows}`, async () => ({ target, plan: plans.issue(customers) })),
  byHttp(`refresh, ${rows}`, async () => {
    const sessions = await issueTokens(target, customers, SESSIONS, { refresh: true })
    return { target, plan: plans.refresh(sessions) }
  }),
]

/** Adds one session and one audit event for every customer. */
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

/** Inserts live revocations as if they had been made one by one. */
async function revoke({ query, customers }: Installation, many: number) {
  const statement = `
    insert into assay.revocations (seq, kind, customer_id, key, dead_after)
    select n, 'token', $2, substr(translate(md5(n::text), '0189', 'ghij'), 1, 24), assay.now() + interval '1 day'
    from generate_series(1, $1::int) as n`
  await query(statement, [many, customers[0]!.id])
  await query('update assay.change_feed set seq = seq + $1::int', [many])
}

async function heard(assay: Assay, many: number) {
  while ((await metric(assay, /^assay_revocations[ {]/))! < many)
    await new Promise(resolve => setTimeout(resolve, 100))
}
