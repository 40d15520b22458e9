import { setTimeout as sleep } from 'node:timers/promises'
import type { Ask } from './asks.ts'
import * as asks from './asks.ts'
import { outcomeOf } from './call.ts'
import type { Access, Customer, Session } from './holdings.ts'
import { claimsOf } from './holdings.ts'
import type { Answer, Send } from './noting.ts'
import type { Random } from './seeded.ts'

/** Tokens that any client may present: recently issued ones and recently ended ones. */
export interface Board {
  recent: Access[]
  ended: Access[]
}

const POSTED = { recent: 200, ended: 100 }

export function post(board: Board, list: keyof Board, ...tokens: Access[]) {
  board[list].push(...tokens)
  board[list].splice(0, board[list].length - POSTED[list])
}

export interface Client {
  name: string
  customer: Customer
  sessions: Session[]
  board: Board
  replicas: number
  send: Send
  /** True once the run is over; failed calls are then not retried. */
  over(): boolean
}

/** Delay before a 503 is retried (ms). */
const BETWEEN_TRIES = 200

/** Retries until the outcome is known, each time at a random replica. */
export async function persist(me: Client, random: Random, ask: (first: number) => Ask): Promise<Answer> {
  const first = performance.now()
  for (;;) {
    const answer = await me.send(me.name, random.below(me.replicas), ask(first))
    if (outcomeOf(answer.call) !== 'unknown' || me.over()) return answer
    await sleep(BETWEEN_TRIES)
  }
}

/** Handles a token response as an honest client does: stores the refresh token before it uses the access token. */
export function keep(me: Client, session: Session, { call, json }: Answer) {
  const { granted } = call
  if (outcomeOf(call) === 'no') return drop(me, session)
  if (!granted?.session) return
  const { gen } = granted.session
  if (gen > session.refreshes.at(-1)!.gen)
    session.refreshes.push({ gen, text: json.refresh_token, askedAt: call.sentAt })
  session.access = { name: granted.token, text: json.access_token, customer: me.customer }
  post(me.board, 'recent', session.access)
}

export function drop(me: Client, session: Session) {
  me.sessions = me.sessions.filter(one => one !== session)
}

/** Adds the session that a token response created. */
export function hold(me: Client, { call, json }: Answer): Session | undefined {
  const { granted } = call
  if (!granted?.session) return undefined
  const access = { name: granted.token, text: json.access_token, customer: me.customer }
  const { name, gen } = granted.session
  const session: Session = {
    name,
    id: claimsOf(json.refresh_token).sid,
    customer: me.customer,
    subject: granted.subject,
    access,
    refreshes: [{ gen, text: json.refresh_token, askedAt: call.sentAt }],
  }
  me.sessions.push(session)
  post(me.board, 'recent', access)
  return session
}

export async function refresh(me: Client, random: Random, session: Session) {
  const answer = await persist(me, random, () => asks.refresh(session, session.refreshes.at(-1)!))
  keep(me, session, answer)
  return answer.call
}

/** Verifies as an honest client does: it refreshes when its access token is refused. */
export async function verifyOwn(me: Client, random: Random) {
  const session = random.pick(me.sessions)
  if (!session) return
  const ask = random.chance(0.2) ? asks.introspect : asks.verify
  const { call } = await me.send(me.name, random.below(me.replicas), ask(session.access, random.chance(0.1)))
  if (outcomeOf(call) === 'no') await refresh(me, random, session)
}
