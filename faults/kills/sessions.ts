import { any, chance, claimsOf } from '../tokens.ts'
import type { Answer, Calls } from './calls.ts'
import { type Customer, fresh, type Session, sessionOf, store } from './held.ts'
import { auditName, type Kind, type Ledger } from './ledger.ts'

export type SessionActs = ReturnType<typeof sessionActs>

/** Acts that begin and refresh sessions. */
export function sessionActs({ insist }: Calls, ledger: Ledger) {
  /** Uses an Idempotency-Key, so a retry after a lost answer begins no second session. */
  async function issue(customers: Customer[]): Promise<Session | undefined> {
    const customer = any(customers)!
    const subject = fresh('user')
    const answer = await insist('/issue', {
      bearer: customer.apiKey,
      json: { subject, refresh: true },
      headers: { 'Idempotency-Key': subject },
    })
    if (answer.status !== 200) return ledger.odd('issue', answer)
    noteToken('issue', answer, answer.cut)
    return sessionOf(customer, answer.json)
  }

  function noteToken(kind: Kind, { json }: Answer, retried: boolean) {
    const tokenId = claimsOf(json.access_token).jti
    ledger.acknowledge(kind, auditName('issued', tokenId))
    if (retried) ledger.retried.push({ kind, tokenId })
  }

  /** Sometimes refreshes from two tabs at once, or repeats the refresh as a late tab would. All must get the same successor. */
  async function refresh(session: Session): Promise<void> {
    const presented = session.refresh
    const once = () => insist('/refresh', { form: { refresh_token: presented } })
    const tabs = chance(0.2) ? 2 : 1
    const answers = await Promise.all(Array.from({ length: tabs }, once))
    const wasCut = answers.some(({ cut }) => cut)
    if (wasCut || chance(0.1)) answers.push(await once())
    for (const answer of answers) takeSuccessor(session, presented, answer, wasCut && tabs === 1)
  }

  function takeSuccessor(session: Session, presented: string, answer: Answer, retried: boolean) {
    const { status, json } = answer
    if (status === 400) return ledger.found('logout', `session ${session.id}: ${json.error_description}`)
    if (status !== 200) return ledger.odd('refresh', answer)
    const successor = json.refresh_token
    const isFirst = session.refresh === presented
    noteToken('refresh', answer, retried && isFirst)
    const isNext = claimsOf(successor).gen === claimsOf(presented).gen + 1
    if (!isNext || !(isFirst || session.refresh === successor))
      ledger.found('fork', `session ${session.id}: the successor is not the next generation`)
    store(session, json)
  }

  return { issue, refresh }
}
