import { chance, claimsOf } from '../tokens.ts'
import type { Answer, Calls, Insisted } from './calls.ts'
import type { Session } from './held.ts'
import { auditName, type Kind, type Ledger } from './ledger.ts'

/** Acts that end tokens, sessions and subjects, which must be refused permanently once acknowledged. */
export function endingActs(calls: Calls, ledger: Ledger) {
  const { insist } = calls

  /**
   * `send` gets a callback for its first cut that checks whether the token is dead already. Returns whether the act was
   * acknowledged.
   */
  async function end(
    kind: Kind,
    { access }: Session,
    named: string,
    send: (afterCut: () => Promise<void>) => Promise<Insisted>,
  ): Promise<boolean> {
    const answer = await send(async () => {
      const dead = await isDead(calls, access)
      if (dead !== undefined) ledger.wasCut(kind, dead)
    })
    if (!isDone(answer)) {
      ledger.odd(kind, answer)
      return false
    }
    ledger.acknowledge(kind, named)
    ledger.facts.push({ what: named, holds: replica => isDead(calls, access, replica) })
    return true
  }

  /** Skipped for customers whose emergency rotations also end tokens, because then the cause would be unknown. */
  async function revokeToken(session: Session): Promise<void> {
    const { access, customer } = session
    if (customer.hasEmergencies) return
    const request = { bearer: customer.apiKey, form: { token: access } }
    const named = auditName('token.revoked', claimsOf(access).jti)
    await end('revoke token', session, named, afterCut => insist('/revoke', request, afterCut))
  }

  async function revokeSession(session: Session): Promise<void> {
    const { id, customer, refresh: token } = session
    const byId = { method: 'DELETE', bearer: customer.apiKey }
    const done = await end('revoke session', session, auditName('session.revoked', id), afterCut =>
      chance(0.5)
        ? insist(`/api/sessions/${id}`, byId, afterCut)
        : insist('/revoke', { form: { token } }, afterCut),
    )
    if (done) noteEnd(session)
  }

  async function revokeSubject(session: Session): Promise<void> {
    const { subject, customer } = session
    const done = await end('revoke subject', session, auditName('subject.revoked', subject), afterCut =>
      insist('/api/subjects/revoke', { bearer: customer.apiKey, json: { subject } }, afterCut),
    )
    if (done) noteEnd(session)
  }

  function noteEnd({ id, refresh: token }: Session) {
    ledger.facts.push({ what: `the end of session ${id}`, holds: replica => isEnded(calls, token, replica) })
  }

  return { revokeToken, revokeSession, revokeSubject }
}

/** 404 after a cut: an earlier attempt has ended it. */
const isDone = ({ status, cut }: Insisted) => status === 200 || status === 204 || (cut && status === 404)

/** Undefined if the state is unknown. */
export async function isDead(
  { call }: Calls,
  access: string,
  replica?: number,
): Promise<boolean | undefined> {
  const strict = { method: 'GET', bearer: access, headers: { 'X-Consistency': 'strict' } }
  return refusedBy(401, await call('/verify', replica === undefined ? strict : { ...strict, replica }))
}

async function isEnded({ call }: Calls, token: string, replica: number): Promise<boolean | undefined> {
  return refusedBy(400, await call('/refresh', { form: { refresh_token: token }, replica }))
}

const refusedBy = (refusal: number, { status }: Answer) =>
  status === refusal ? true : status === 200 ? false : undefined
