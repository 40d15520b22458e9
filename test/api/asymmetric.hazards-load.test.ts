import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { randomId } from '../../server/crypto/credentials.ts'
import { holdThreads } from '../support/held-threads.ts'
import { holding, named, POLL } from '../support/holding.ts'
import { ALGORITHMS, rotate } from '../support/local.ts'
import { type PairForger, pairForger, withSignature } from '../support/pair-forge.ts'
import { until } from '../support/process.ts'
import { type Answer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Asymmetric signatures are verified in other threads. Tests what can change in that time, and who is delayed by a flood. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

/** Milliseconds after the rotation's acknowledgement. */
type Moment = 'before' | 'during' | 'after'

/** Tokens of one customer, each with its own id. */
const newTokens = (real: PairForger, many: number) =>
  Array.from({ length: many }, () => real.withClaims({ jti: randomId(15) }))

describe('during an emergency retirement of the key', () => {
  /** Concurrent verifications on each replica: fewer than may wait for one customer. */
  const ABREAST = 16
  const MANY = 200

  test.each(ALGORITHMS)('no %s token that is sent after the acknowledgement is accepted', async alg => {
    const real = await pairForger(world, here, alg)
    const seen: { sent: Moment; answered: Moment; status: number }[] = []
    let moment = 'before' as Moment
    const answeredBefore = () => seen.filter(({ answered }) => answered === 'before')
    const sentAfter = () => seen.filter(({ sent }) => sent === 'after')

    /** Sends new tokens one after another until enough were sent after the acknowledgement. */
    async function client(assay: Replica) {
      while (sentAfter().length < MANY) {
        const sent = moment
        const { status } = await assay.verify(newTokens(real, 1)[0]!)
        seen.push({ sent, answered: moment, status })
        // A refusal takes no turn of the event loop, but the rotation needs one.
        await new Promise(setImmediate)
      }
    }

    const clients = [here, there].flatMap(assay => Array.from({ length: ABREAST }, () => client(assay)))
    while (answeredBefore().length < MANY) await new Promise(setImmediate)
    moment = 'during'
    const rotated = await rotate(here, real.customer, { use: 'access', now: true }).finally(() => {
      moment = 'after'
    })
    await Promise.all(clients)
    const statuses = (some: typeof seen) => new Set(some.map(({ status }) => status))
    expect(rotated.status).toBe(200)
    expect(statuses(answeredBefore())).toEqual(new Set([200]))
    expect(statuses(sentAfter())).toEqual(new Set([401]))
    expect([...statuses(seen)].sort()).toEqual([200, 401])
  })

  test.each(ALGORITHMS)(
    'H69 a token is checked against the keys that exist once its signature is verified: %s',
    async alg => {
      const real = await pairForger(world, here, alg)
      const [rotating, lagging] = [await heldReplica(), await heldReplica()]
      expect((await lagging.replica.verify(real.token)).status).toBe(200)
      // The record in memory is from before the rotation.
      const poll = lagging.database.hold(POLL)
      await poll.has
      const rotated = rotating.database.hold(named('rotateKeys'))
      const acknowledged = rotate(rotating.replica, real.customer, { use: 'access', now: true })
      await rotated.has
      const threads = holdThreads()
      const verified = lagging.replica.verify(newTokens(real, 1)[0]!)
      for (const held of [rotated, poll]) held.release()
      expect((await acknowledged).status).toBe(200)
      await threads.release()
      expect((await verified).status).toBe(401)
    },
  )

  /** A replica on a database whose answers can be held. Its lease is longer than any hold. */
  async function heldReplica() {
    const database = holding(world.db)
    const replica = await world.replica({ MAX_STALENESS: '1m' }, { link: database.db })
    onTestFinished(replica.stop)
    return { database, replica }
  }
})

describe('a flood of wrong signatures under a valid kid', () => {
  /** As in docs/decisions: concurrent verifications, and waiting ones per customer and in total. */
  const ABREAST = 2
  const WAITING_OF_ONE = 32
  const WAITING = 256

  const garbage = ({ input, signature }: PairForger, many: number) =>
    Array.from({ length: many }, () => withSignature(input, randomBytes(signature.length)))

  /** Sends all tokens at once, and records those that are refused without verification. */
  function flood(tokens: string[]) {
    const refused: Answer[] = []
    const answers = tokens.map(async token => {
      const answer = await here.verify(token)
      if (answer.status === 503) refused.push(answer)
      return answer.status
    })
    return { refused, answers }
  }

  const count = (statuses: number[], status: number) => statuses.filter(one => one === status).length

  test.each(ALGORITHMS)('is refused beyond a limit, and delays nobody else: %s', async alg => {
    const [real, other] = [await pairForger(world, here, alg), await pairForger(world, here, alg)]
    for (const { token } of [real, other]) expect((await here.verify(token)).status).toBe(200)
    const threads = holdThreads()
    const { refused, answers } = flood(garbage(real, 200))
    const verified = ABREAST + WAITING_OF_ONE
    await until('the rest is refused', () => refused.length === 200 - verified)
    expect(new Set(refused.map(({ headers }) => headers.get('retry-after')))).toEqual(new Set(['1']))
    const own = await here.verify(newTokens(real, 1)[0]!)
    expect([own.status, own.headers.get('retry-after')]).toEqual([503, '1'])
    // A cached token needs no thread.
    expect((await here.verify(real.token)).status).toBe(200)
    expect((await here.introspect(real.token)).json.active).toBe(true)
    const others = newTokens(other, WAITING_OF_ONE).map(token => here.verify(token))
    await threads.release()
    expect((await Promise.all(others)).map(({ status }) => status)).toEqual(others.map(() => 200))
    const statuses = await Promise.all(answers)
    expect([count(statuses, 401), count(statuses, 503)]).toEqual([verified, 200 - verified])
    expect((await here.verify(newTokens(real, 1)[0]!)).status).toBe(200)
  })

  test('of many customers leaves room for a customer with few requests', async () => {
    const busy = await Promise.all(Array.from({ length: 9 }, () => pairForger(world, here, 'EdDSA')))
    const quiet = await pairForger(world, here, 'EdDSA')
    for (const { token } of [...busy, quiet]) expect((await here.verify(token)).status).toBe(200)
    const threads = holdThreads()
    const tokens = busy.flatMap(one => garbage(one, 40))
    const { refused, answers } = flood(tokens)
    const verified = ABREAST + WAITING
    await until('the rest is refused', () => refused.length === tokens.length - verified)
    const own = newTokens(quiet, 1).map(token => here.verify(token))
    await until('one of the flood gives its place', () => refused.length === tokens.length - verified + 1)
    await threads.release()
    expect((await own[0]!).status).toBe(200)
    const statuses = await Promise.all(answers)
    expect([count(statuses, 401), count(statuses, 503)]).toEqual([verified - 1, tokens.length - verified + 1])
  })
})
