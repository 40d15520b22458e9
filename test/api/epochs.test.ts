import { afterAll, beforeAll, expect, test } from 'vitest'
import { hear } from '../support/holding.ts'
import { publishCustomer } from '../support/plant.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

/** Every rule that can end a token, alone and together, at the replica that acted and at another. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

/** Moves the epoch of a subject, or of the whole customer, as the server will, in one statement. */
async function moveEpoch(customerId: string, subject?: string) {
  const change =
    subject === undefined
      ? `update assay.customers set epoch = next.epoch from next where id = $1 and $2::text is null returning 1`
      : `insert into assay.subject_epochs (customer_id, subject, epoch) select $1, $2, epoch from next returning 1`
  const kind = subject === undefined ? 'customer' : 'subject'
  await world.db.query(
    `with next as materialized (select nextval('assay.epochs') as epoch), changed as (${change}),
    numbered as (update assay.bus set seq = seq + (select count(*) from changed) returning seq)
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select seq, '${kind}', $1, coalesce($2, ''), epoch, assay.now() + interval '1 day' from numbered, next`,
    [customerId, subject ?? null],
  )
}

async function retireKey(customerId: string) {
  const retire = `update assay.signing_keys set state = 'retired' where customer_id = $1 and use = 'access'`
  await world.db.query(retire, [customerId])
  await publishCustomer(world, customerId)
}

test('when a subject is revoked, its tokens end, and new ones and those of others live', async () => {
  const customer = await here.signUp()
  const [ended, other] = [await customer.session(), await customer.session({ subject: 'user-2' })]
  await moveEpoch(customer.id, 'user-1')
  await hear(here, there)
  expect((await there.verify(ended.access_token)).status).toBe(401)
  expect((await here.refresh(ended.refresh_token)).json.error).toBe('invalid_grant')
  expect((await there.verify(other.access_token)).status).toBe(200)
  const renewed = await customer.session()
  expect((await there.verify(renewed.access_token)).status).toBe(200)
  expect((await there.refresh(renewed.refresh_token)).status).toBe(200)
})

test('when a customer is revoked, all its tokens end, and new ones live', async () => {
  const [customer, neighbour] = [await here.signUp(), await here.signUp()]
  const [ended, other] = [await customer.session(), await neighbour.session()]
  expect((await there.verify(ended.access_token)).status).toBe(200)
  await moveEpoch(customer.id)
  await hear(here, there)
  for (const replica of [here, there]) {
    expect((await replica.verify(ended.access_token)).status).toBe(401)
    expect((await replica.verify(other.access_token)).status).toBe(200)
  }
  expect((await here.refresh(ended.refresh_token)).json.error).toBe('invalid_grant')
  expect((await there.verify((await customer.session()).access_token)).status).toBe(200)
})

test('a lower epoch of a subject that arrives late undoes nothing', async () => {
  const customer = await here.signUp()
  const token = (await customer.issue({ subject: 'user-1' })).json.access_token
  await moveEpoch(customer.id, 'user-1')
  await world.db.query(
    `with numbered as (update assay.bus set seq = seq + 1 returning seq)
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select seq, 'subject', $1, 'user-1', 0, assay.now() + interval '1 day' from numbered`,
    [customer.id],
  )
  await hear(here, there)
  expect((await there.verify(token)).status).toBe(401)
})

const RULES = ['token', 'session', 'subject'] as const

const revokeOne = {
  token: (customer: Customer, { token }: Subject) =>
    here.postForm('/revoke', { token }, bearer(customer.apiKey)),
  session: (customer: Customer, { refreshToken }: Subject) =>
    here.postForm('/revoke', { token: refreshToken }, bearer(customer.apiKey)),
  subject: (customer: Customer, { subject }: Subject) => moveEpoch(customer.id, subject),
}

interface Subject {
  subject: string
  token: string
  refreshToken: string
}

/** Eight sessions of one customer, each of which `RULES` end by the bits of its number, then the customer's own rules. */
async function combinations(wholeCustomer: boolean, key: boolean) {
  const customer = await here.signUp()
  const subjects = await Promise.all(
    Array.from({ length: 8 }, async (_, bits) => {
      const { access_token, refresh_token } = await customer.session({ subject: `user-${bits}` })
      return { subject: `user-${bits}`, token: access_token, refreshToken: refresh_token }
    }),
  )
  for (const { token } of subjects) expect((await there.verify(token)).status).toBe(200)
  for (const [bits, subject] of subjects.entries())
    for (const [bit, rule] of RULES.entries()) if (bits & (1 << bit)) await revokeOne[rule](customer, subject)
  if (wholeCustomer) await moveEpoch(customer.id)
  if (key) await retireKey(customer.id)
  await hear(here, there)
  return subjects
}

test.each([
  [false, false],
  [false, true],
  [true, false],
  [true, true],
])(
  'H22 each rule ends a token whatever the others say; customer revoked %s, key retired %s (CVE-2026-8922)',
  async (wholeCustomer, key) => {
    const subjects = await combinations(wholeCustomer, key)
    for (const [bits, { token }] of subjects.entries()) {
      const ended = bits > 0 || wholeCustomer || key
      for (const replica of [here, there]) {
        expect((await replica.verify(token)).status, `rules ${bits}`).toBe(ended ? 401 : 200)
        const { json } = await replica.introspect(token)
        expect(json.active, `rules ${bits}, ${claimsOf(token).sub}`).toBe(!ended)
      }
    }
  },
)
