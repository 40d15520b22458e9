import { setTimeout as sleep } from 'node:timers/promises'
import { ask, type Stage } from '../stage.ts'
import { claimsOf } from '../tokens.ts'
import type { Calls } from './calls.ts'
import type { Crowd } from './crowd.ts'
import { isDead } from './ends.ts'
import type { Session } from './held.ts'
import { auditName, type Fact, type Ledger } from './ledger.ts'

/** Number of concurrent checks; those that wait for a poll share it. */
const ASKERS = 64
/** Maximum time that a replica may answer "unknown" after its start or on a busy machine (ms). */
const PATIENCE = 60_000

/** Checks whether everything acknowledged still holds at these replicas. */
export async function holdTo(facts: Fact[], ledger: Ledger, replicas: number[]): Promise<void> {
  await eachOf(facts, async ({ what, holds }) => {
    for (const replica of replicas) if (!(await known(() => holds(replica), what))) ledger.found('lost', what)
  })
}

async function known(holds: () => Promise<boolean | undefined>, what: string): Promise<boolean> {
  const end = performance.now() + PATIENCE
  for (;;) {
    const answer = await holds()
    if (answer !== undefined) return answer
    if (performance.now() > end) throw new Error(`unknown for more than ${PATIENCE} ms: ${what}`)
    await sleep(50)
  }
}

/** Checks everything after all clients have stopped. */
export async function reckon(stage: Stage, calls: Calls, ledger: Ledger, { sessions, refresh }: Crowd) {
  const replicas = stage.replicas.map((_, replica) => replica)
  await holdTo(ledger.facts, ledger, replicas)
  await holdToGenerations(stage, ledger, sessions)
  await eachOf(sessions, async session => {
    await refresh(session)
    for (const replica of replicas)
      if (await known(() => isDead(calls, session.access, replica), session.id))
        ledger.found('logout', `session ${session.id}: its new access token is refused`)
  })
  await holdToAudit(stage, ledger)
}

/** Each session has its client's generation, and none was refreshed twice from one generation. */
async function holdToGenerations(stage: Stage, ledger: Ledger, sessions: Session[]) {
  const rows = await ask<{ id: string; gen: number }>(stage, 'select id, gen from assay.sessions')
  const generations = new Map(rows.map(({ id, gen }) => [id, gen]))
  for (const { id, refresh } of sessions)
    if (generations.get(id) !== claimsOf(refresh).gen)
      ledger.found('lost', `session ${id}: its generation is ${generations.get(id)}`)
  const forked = await ask<{ id: string }>(
    stage,
    `select session_id as id from assay.audit_events where type = 'session.refreshed'
    group by session_id, detail::json ->> 'presented' having count(*) > 1`,
  )
  for (const { id } of forked) ledger.found('fork', `session ${id}: refreshed twice from one generation`)
}

interface AuditRow {
  type: string
  customer: string
  subject: string | null
  session: string | null
  token: string | null
  detail: string | null
}

async function holdToAudit(stage: Stage, ledger: Ledger) {
  const rows = await ask<AuditRow>(
    stage,
    `select type, customer_id as customer, subject, session_id as session, token_id as token, detail
    from assay.audit_events`,
  )
  const told = new Set(rows.flatMap(namesOf))
  for (const name of ledger.audited) if (!told.has(name)) ledger.found('lost', `the audit row of ${name}`)
  const types = new Map(rows.map(({ token, type }) => [token, type]))
  for (const { kind, tokenId } of ledger.retried)
    ledger.wasCut(kind, types.get(tokenId) === 'session.replayed')
}

const ISSUING = [
  'customer.signed_up',
  'customer.logged_in',
  'token.issued',
  'session.refreshed',
  'session.replayed',
]

function namesOf({ type, customer, subject, session, token, detail }: AuditRow): string[] {
  if (ISSUING.includes(type)) return [auditName('issued', token!)]
  const { versions = {}, api_key_id: key } = JSON.parse(detail ?? '{}')
  if (type === 'secret.rotated')
    return Object.entries(versions).map(([use, version]) => auditName(type, `${customer} ${use} ${version}`))
  const concerned: Record<string, string | null> = {
    'token.revoked': token,
    'session.revoked': session,
    'subject.revoked': subject,
    'api_key.created': key,
    'api_key.deleted': key,
  }
  return [auditName(type, concerned[type] ?? '')]
}

async function eachOf<Item>(items: Item[], act: (item: Item) => Promise<void>): Promise<void> {
  const rest = items.values()
  const worker = async () => {
    for (const item of rest) await act(item)
  }
  await Promise.all(Array.from({ length: ASKERS }, worker))
}
