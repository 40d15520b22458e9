import { type Call, decidedToken, type Grant, outcomeOf } from './call.ts'

/** A history, indexed by what its calls concern. */
export interface Known {
  calls: Call[]
  /** Each access token with the call that returned it. */
  grants: Map<string, Granted>
  /** Each session with the grant that created it. */
  sessions: Map<string, Granted>
  refreshes: Map<string, Call[]>
  /** Acts that end something, by `tokenKey`, `sessionKey`, `subjectKey` or `customerKey`. */
  enders: Map<string, Call[]>
  /** When an access token was first presented, by its session and generation. */
  firstUse: Map<string, number>
}

export interface Granted {
  call: Call
  grant: Grant
}

export const tokenKey = (token: string) => `token ${token}`
export const sessionKey = (session: string) => `session ${session}`
export const subjectKey = (customer: string, subject: string) => `subject ${customer} ${subject}`
export const customerKey = (customer: string) => `customer ${customer}`

export function learn(calls: Call[]): Known {
  const known: Known = {
    calls,
    grants: new Map(),
    sessions: new Map(),
    refreshes: new Map(),
    enders: new Map(),
    firstUse: new Map(),
  }
  for (const call of calls) {
    learnGrant(known, call)
    if (call.act.does === 'refresh') listed(known.refreshes, call.act.session).push(call)
    const ended = endedBy(call)
    if (ended !== undefined) listed(known.enders, ended).push(call)
  }
  for (const call of calls) learnUse(known, call)
  return known
}

function learnGrant({ grants, sessions }: Known, call: Call) {
  const grant = call.granted
  if (grant === undefined) return
  grants.set(grant.token, { call, grant })
  const name = grant.session?.name
  if (name !== undefined && call.act.does !== 'refresh' && !sessions.has(name))
    sessions.set(name, { call, grant })
}

function learnUse({ grants, firstUse }: Known, call: Call) {
  const session = grants.get(decidedToken(call) ?? '')?.grant.session
  if (session === undefined) return
  const key = `${session.name}.${session.gen}`
  firstUse.set(key, Math.min(firstUse.get(key) ?? Number.POSITIVE_INFINITY, call.sentAt))
}

/** The key of what the call ended or may have ended. A refresh ends its session only on reuse, which generations.ts decides. */
function endedBy(call: Call): string | undefined {
  const { act } = call
  if (outcomeOf(call) === 'no' || outcomeOf(call) === 'turned away') return undefined
  if (act.does === 'revoke token') return tokenKey(act.token)
  if (act.does === 'revoke session') return sessionKey(act.session)
  if (act.does === 'revoke subject') return subjectKey(act.customer, act.subject)
  if (act.does === 'revoke customer' || (act.does === 'rotate' && act.now)) return customerKey(act.customer)
  return undefined
}

function listed<Key, Item>(lists: Map<Key, Item[]>, key: Key): Item[] {
  const list = lists.get(key) ?? []
  lists.set(key, list)
  return list
}

/** Throws if the history is inconsistent: clients present only tokens that they were given. */
export const grantOf = ({ grants }: Known, token: string) => found(grants, token)
export const sessionOf = ({ sessions }: Known, session: string) => found(sessions, session)

function found(granted: Map<string, Granted>, name: string): Granted {
  const one = granted.get(name)
  if (one === undefined) throw new Error(`no client was given ${name}`)
  return one
}
