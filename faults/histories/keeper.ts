import * as asks from './asks.ts'
import type { Use } from './call.ts'
import { chase } from './chase.ts'
import { type Client, hold, persist, post, refresh, verifyOwn } from './client.ts'
import type { Session } from './holdings.ts'
import type { Random } from './seeded.ts'

/** Actions of a customer on its own account: it logs in, rotates its secrets, and revokes all of its sessions. */

type Step = (me: Client, random: Random, own: Session) => Promise<unknown>

const USES: (Use | 'both')[] = ['access', 'refresh', 'both']

const rotate = async (me: Client, random: Random, own: Session) => {
  const uses = random.pick(USES)!
  await persist(me, random, () => asks.rotate(me.customer, own, uses, false))
}

async function rotateNow(me: Client, random: Random, own: Session) {
  const uses = random.pick(USES)!
  await persist(me, random, () => asks.rotate(me.customer, own, uses, true))
  await afterAll(me, random)
}

async function revokeCustomer(me: Client, random: Random, own: Session) {
  const wait = random.chance(0.3)
  await persist(me, random, () => asks.revokeCustomer(me.customer, own, wait))
  await afterAll(me, random)
}

/** Presents the customer's latest tokens. */
function afterAll(me: Client, random: Random) {
  const own = me.board.recent.filter(({ customer }) => customer === me.customer).slice(-4)
  post(me.board, 'ended', ...own)
  return chase(me, random, own)
}

const PEACEFUL: [weight: number, step: Step][] = [
  [3, verifyOwn],
  [3, refresh],
  [4, rotate],
]

const ALL: typeof PEACEFUL = [
  ...PEACEFUL,
  [1.5, rotateNow],
  [0.7, revokeCustomer],
  [0.5, (me, random, own) => persist(me, random, () => asks.logOut(own))],
]

/** A `peaceful` keeper only rotates and never revokes, so its customer's sessions live long. */
export const keeperStep = (peaceful: boolean) => async (me: Client, random: Random) => {
  const own = me.sessions[0] ?? (await logIn(me, random))
  if (own) await random.weighed(peaceful ? PEACEFUL : ALL)(me, random, own)
}

const logIn = async (me: Client, random: Random) =>
  hold(me, await persist(me, random, () => asks.logIn(me.customer)))
