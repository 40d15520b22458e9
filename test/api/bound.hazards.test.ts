import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { Connection, Database } from '../../db/client.ts'
import { Unavailable } from '../../server/lib/errors.ts'
import { type OwnReplica, replicaOn } from '../support/holding.ts'
import { until } from '../support/process.ts'
import { randomFrom } from '../support/sessions.ts'
import { SEED, trials } from '../support/trials.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** No token is accepted after the staleness bound (CVE-2026-3583, CVE-2026-46554, where it was accepted for three days). */

/** The staleness bound (ms). */
const N = 1_000
const TRIALS = trials(1_000, 20)
/** Replicas that are tested in parallel, each with its own revocations. */
const REPLICAS = 10
/** Pause between two requests (ms). */
const EVERY = 5

let world: World
let here: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica({ MAX_STALENESS: '1m' })
  customer = await here.signUp()
})
afterAll(() => world.stop())

/** False while replicas start, because a start needs an answer. */
let losing = false

/** A database whose poll answers are late, up to the time when a poll gives up (N/2), or never arrive. */
function late(db: Database, nth: number): Database {
  const random = randomFrom(SEED + nth)
  const through = (connection: Connection): Connection => ({
    ...connection,
    async query<Row>(statement: string, params?: readonly unknown[]) {
      const rows = await connection.query<Row>(statement, params)
      if (!losing) return rows
      const lost = random() < 0.4
      await pause(lost ? N / 2 : random() * 0.45 * N)
      if (lost) throw new Unavailable('the deadline of a poll', 'database')
      return rows
    },
  })
  return { ...db, connection: deadline => through(db.connection(deadline)) }
}

test.each([
  ['at once', (db: Database) => db],
  ['late or never', late],
])(
  `H20 after the bound, another replica whose polls are answered %s accepts none of ${TRIALS} revoked tokens`,
  async (_, link) => {
    const replicas: OwnReplica[] = []
    for (let nth = 0; nth < REPLICAS; nth++)
      replicas.push(await replicaOn(world, link(world.db, nth), { MAX_STALENESS: `${N}ms` }))
    losing = true
    onTestFinished(() => {
      losing = false
    })
    const latest: number[] = []
    const askOne = async (there: OwnReplica, nth: number) => {
      for (let trial = nth; trial < TRIALS; trial += REPLICAS) latest.push(await revokeAndAsk(there))
    }
    await Promise.all(replicas.map(askOne))
    expect(Math.max(...latest)).toBeLessThan(N)
    process.stdout.write(`${latest.length} revocations: the latest yes was asked ${told(latest)}\n`)
  },
)

const told = (latest: number[]) => `${Math.round(Math.max(...latest))} ms after the acknowledgement`

/** Verifies continuously. Returns when the last accepted request was sent, in milliseconds after the acknowledgement. */
async function revokeAndAsk(there: Pick<Replica, 'verify'>): Promise<number> {
  const { status, json } = await customer.issue()
  expect(status).toBe(200)
  const token: string = json.access_token
  const ask = async () => (await there.verify(token)).status
  // Two consecutive polls must be answered, which is rare on such a link.
  await until('it is known to be good', async () => (await ask()) === 200)
  let acknowledged = Number.POSITIVE_INFINITY
  const revoked = here.postForm('/revoke', { token }, bearer(customer.apiKey)).then(({ status }) => {
    acknowledged = performance.now()
    expect(status).toBe(200)
  })
  let latest = Number.NEGATIVE_INFINITY
  let refused = false
  for (let sent = performance.now(); sent < acknowledged + N + 100 || !refused; sent = performance.now()) {
    const status = await ask()
    // Once refused, the token stays refused; the only other answer is unknown.
    expect(refused ? [401, 503] : [200, 401, 503]).toContain(status)
    refused ||= status === 401
    if (status === 200) latest = sent
    await pause(EVERY)
  }
  await revoked
  return latest - acknowledged
}
