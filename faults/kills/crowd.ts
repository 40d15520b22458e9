import { setTimeout as sleep } from 'node:timers/promises'
import { any, chance } from '../tokens.ts'
import { accountActs } from './accounts.ts'
import type { Calls } from './calls.ts'
import { endingActs } from './ends.ts'
import type { Customer, Session } from './held.ts'
import type { Ledger } from './ledger.ts'
import { secretActs } from './secrets.ts'
import { sessionActs } from './sessions.ts'

/** Honest clients that perform every kind of act concurrently, each waiting for its answer. */

const CLIENTS = 24
const CUSTOMERS = 4
/** Target number of sessions: below it more are begun, above it more are ended. */
const SESSIONS = 300
/** Maximum pause between two acts, normally and while a server starts and needs the CPU too (ms). */
const LONGEST_REST = 30
const CALM_REST = 600
/** Maximum number of API keys per customer, in addition to its first. */
const KEYS = 3

export type Crowd = Awaited<ReturnType<typeof gather>>

export async function gather(calls: Calls, ledger: Ledger) {
  const sessions: Session[] = []
  const customers: Customer[] = []
  const { issue, refresh } = sessionActs(calls, ledger)
  const accounts = accountActs(calls, ledger, { issue, refresh })
  const { rotate } = secretActs(calls, ledger, accounts)
  const { revokeToken, revokeSession, revokeSubject } = endingActs(calls, ledger)
  let stopped = false
  let calm = false

  async function signUp() {
    const customer = await accounts.signUp(customers.length % 2 === 1)
    if (customer) customers.push(customer)
  }

  async function begin() {
    const session = await issue(customers)
    if (session) sessions.push(session)
  }

  /** Takes a session out of the list, so that no other client uses it at the same time. */
  async function take(act: (session: Session) => Promise<void>, after: 'keep' | 'drop') {
    const [session] = sessions.splice(Math.floor(Math.random() * sessions.length), 1)
    if (!session) return
    await act(session)
    if (after === 'keep') sessions.push(session)
  }

  async function atAccount(act: (customer: Customer) => Promise<unknown>) {
    const customer = any(customers.filter(({ busy }) => !busy))
    if (!customer) return
    customer.busy = true
    await act(customer).finally(() => {
      customer.busy = false
    })
  }

  const changeKeys = (customer: Customer) =>
    customer.keys.length < KEYS && chance(0.6) ? accounts.createKey(customer) : accounts.deleteKey(customer)
  const isFull = () => sessions.length > SESSIONS * Math.random() * 2

  async function anyAct() {
    if (chance(0.005)) return signUp()
    if (chance(0.03)) return atAccount(rotate)
    if (chance(0.03)) return atAccount(changeKeys)
    if (chance(0.1)) return take(revokeToken, 'keep')
    if (chance(0.4)) return isFull() ? take(any([revokeSession, revokeSubject])!, 'drop') : begin()
    return take(refresh, 'keep')
  }

  async function client() {
    while (!stopped) {
      await anyAct().catch(error => ledger.found('odd answer', String(error)))
      await sleep(Math.random() * (calm ? CALM_REST : LONGEST_REST))
    }
  }

  await Promise.all(Array.from({ length: CUSTOMERS }, signUp))
  await Promise.all(Array.from({ length: CLIENTS }, begin))
  const clients = Array.from({ length: CLIENTS }, client)

  return {
    sessions,
    refresh,
    /** Reduces the load until it is called with false. */
    calm(is: boolean) {
      calm = is
    },
    /** Stops the clients; resolves when each has its last answer. */
    async disperse() {
      stopped = true
      await Promise.all(clients)
    },
  }
}
