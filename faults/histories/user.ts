import { setTimeout as sleep } from 'node:timers/promises'
import { N } from '../stage.ts'
import * as asks from './asks.ts'
import { outcomeOf } from './call.ts'
import { chase, present } from './chase.ts'
import { type Client, drop, hold, keep, persist, post, refresh, verifyOwn } from './client.ts'
import { GRACE } from './generations.ts'
import type { Session } from './holdings.ts'
import type { Random } from './seeded.ts'

/** Actions of a customer's users: they begin, refresh and end sessions, and steal tokens. */

type Step = (me: Client, random: Random) => Promise<unknown>

const SESSIONS = 3
/** Maximum number of parallel tabs. */
const MOST_TABS = 6
/** Half the grace period: a replay sent by then is judged within it, if it is judged at all. */
const SOON = GRACE / 2

const STEPS: [weight: number, step: Step][] = [
  [30, verifyOwn],
  [26, verifyAny],
  [5, begin],
  [4, issueAlone],
  [12, (me, random) => ofAny(me, random, session => refresh(me, random, session))],
  [4, loseAnAnswer],
  [4, raceTabs],
  [4, replay],
  [2, steal],
  [3, revokeToken],
  [2, endSession],
  [1, endSubject],
]

export const userStep: Step = (me, random) => random.weighed(STEPS)(me, random)

async function ofAny(me: Client, random: Random, act: (session: Session) => Promise<unknown>) {
  const session = random.pick(me.sessions)
  await (session ? act(session) : begin(me, random))
}

async function verifyAny(me: Client, random: Random) {
  const token = random.pick(random.chance(0.7) ? me.board.ended : me.board.recent)
  if (token) await present(me, random, token, random.below(me.replicas))
}

async function begin(me: Client, random: Random) {
  if (me.sessions.length >= SESSIONS) return
  const subject = `${me.name}-${random.below(2)}`
  const expiresIn = random.chance(0.1) ? 3 + random.below(5) : 300
  const key = `${me.name}-${performance.now()}`
  const wanted = { customer: me.customer, subject, session: true, expiresIn, key }
  hold(me, await persist(me, random, since => asks.issue(wanted, since)))
}

/** Issues an access token without a session. Some of these tokens expire during the run. */
async function issueAlone(me: Client, random: Random) {
  const subject = `${me.name}-${random.below(2)}`
  const expiresIn = random.chance(0.3) ? 3 : 300
  const wanted = { customer: me.customer, subject, session: false, expiresIn, key: '' }
  const { call, json } = await persist(me, random, () => asks.issue(wanted, performance.now()))
  if (!call.granted) return
  const token = { name: call.granted.token, text: json.access_token, customer: me.customer }
  post(me.board, expiresIn < 300 ? 'ended' : 'recent', token)
}

/** The client discards an answer and then presents the same token again. */
async function loseAnAnswer(me: Client, random: Random) {
  await ofAny(me, random, async session => {
    await me.send(me.name, random.below(me.replicas), asks.refresh(session, session.refreshes.at(-1)!))
    await sleep(random.below(N))
    await refresh(me, random, session)
  })
}

/** All tabs present the same token. The client continues only after every tab has its answer. */
async function raceTabs(me: Client, random: Random) {
  await ofAny(me, random, async session => {
    const current = session.refreshes.at(-1)!
    const tabs = Array.from({ length: 2 + random.below(MOST_TABS - 1) }, () => random.below(me.replicas))
    const answers = await Promise.all(
      tabs.map(replica => me.send(me.name, replica, asks.refresh(session, current))),
    )
    for (const answer of answers) keep(me, session, answer)
  })
}

/** A slow tab presents a token that was replaced a moment ago, one or two generations back. */
async function replay(me: Client, random: Random) {
  await ofAny(me, random, async session => {
    const back = 1 + random.below(2)
    const [older, successor] = session.refreshes.slice(-1 - back)
    if (!older || !successor || older === session.refreshes.at(-1)) return
    if (performance.now() - successor.askedAt > SOON) return
    keep(me, session, await me.send(me.name, random.below(me.replicas), asks.refresh(session, older)))
  })
}

/** A thief presents a token that was replaced long ago, in generations or in time. */
async function steal(me: Client, random: Random) {
  const [session, token] = random.pick(me.sessions.flatMap(session => stolenFrom(session))) ?? []
  if (!session || !token) return
  const { call } = await persist(me, random, () => asks.refresh(session, token))
  if (call.error === 'reuse') await afterTheEnd(me, random, session)
}

function stolenFrom(session: Session) {
  const { refreshes } = session
  return refreshes.slice(0, -2).flatMap((token, i) => {
    const long = performance.now() - refreshes[i + 1]!.askedAt > 1.2 * GRACE
    return i < refreshes.length - 3 || long ? [[session, token] as const] : []
  })
}

async function revokeToken(me: Client, random: Random) {
  const token = random.pick(me.sessions)?.access ?? random.pick(me.board.recent)
  if (token?.customer !== me.customer) return
  const wait = random.chance(0.3)
  const { call } = await persist(me, random, () => asks.revokeToken(token, wait))
  post(me.board, 'ended', token)
  if (outcomeOf(call) === 'yes') await chase(me, random, [token])
}

async function endSession(me: Client, random: Random) {
  const session = random.pick(me.sessions)
  if (!session) return
  const [by, wait] = [random.pick(asks.WAYS_TO_END)!, random.chance(0.3)]
  await persist(me, random, () => asks.endSession(session, by, wait))
  await afterTheEnd(me, random, session)
}

async function endSubject(me: Client, random: Random) {
  const session = random.pick(me.sessions)
  if (!session) return
  const wait = random.chance(0.3)
  await persist(me, random, () => asks.revokeSubject(me.customer, session.subject, wait))
  const ended = me.sessions.filter(({ subject }) => subject === session.subject)
  for (const one of ended) await afterTheEnd(me, random, one)
}

/** Other holders of the session's tokens keep trying them. */
async function afterTheEnd(me: Client, random: Random, session: Session) {
  drop(me, session)
  post(me.board, 'ended', session.access)
  await chase(me, random, [session.access])
  await me.send(me.name, random.below(me.replicas), asks.refresh(session, random.pick(session.refreshes)!))
}
