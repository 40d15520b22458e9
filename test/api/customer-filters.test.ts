import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { listMatchingCustomers } from '../../db/queries/customer-filters.ts'
import { ALICE, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Lists of customers by the age of their keys, the strength of their password hashes, and their last use. */

const DAY = 86_400
const WEAK = `$argon2id$v=19$m=4096,t=2,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`
const STRONGER = WEAK.replace('m=4096,t=2', 'm=65536,t=3')

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld({ KEY_MAX_AGE: '0s' })
  assay = await world.replica()
})
afterAll(() => world.stop())

const list = (query: string) => assay.get(`/admin/customers?${query}`, ALICE)

async function find(query: string): Promise<string[]> {
  const { status, json } = await list(`${query}&limit=100`)
  expect(status).toBe(200)
  return json.customers.map(({ id }: { id: string }) => id)
}

const setHash = ({ id }: Customer, hash: string) =>
  world.admin.query('update assay.customers set password_hash = $2 where id = $1', [id, hash])

/** Makes everything about a customer so many days older than it is. */
async function age({ id }: Customer, days: number) {
  const ago = `assay.now() - interval '${days} days'`
  await world.admin.query(
    `update assay.customers set created_at = ${ago}, issued_until = ${ago} where id = $1`,
    [id],
  )
  await world.admin.query(`update assay.signing_keys set created_at = ${ago} where customer_id = $1`, [id])
}

const rotate = ({ id }: Customer, body: object = {}) =>
  assay.postJson(`/admin/customers/${id}/secrets/rotate`, body, bearer(ALICE))

describe('keys_older_than', () => {
  const query = `keys_older_than=${90 * DAY}`

  test('finds a customer whose signing keys are older, and not one with younger keys', async () => {
    const [old, young] = [await assay.signUp(), await assay.signUp()]
    await age(old, 91)
    await age(young, 89)
    const found = await find(query)
    expect(found).toContain(old.id)
    expect(found).not.toContain(young.id)
  })

  test('still finds it after a rotation, while the old keys verify, and no longer once they are retired', async () => {
    const old = await assay.signUp()
    await age(old, 91)
    expect((await rotate(old)).status).toBe(200)
    expect(await find(query)).toContain(old.id)
    expect((await rotate(old, { now: true })).status).toBe(200)
    expect(await find(query)).not.toContain(old.id)
  })
})

describe('weak_hashes', () => {
  test.each([
    ['less memory', WEAK],
    ['fewer passes', WEAK.replace('m=4096,t=2', 'm=19456,t=1')],
    ['argon2i', WEAK.replace('argon2id', 'argon2i').replace('m=4096', 'm=19456')],
    ['bcrypt', `$2b$12$${'a'.repeat(53)}`],
    ['no parameters', '$argon2id$v=19$'],
  ])('finds %s', async (_, hash) => {
    const weak = await assay.signUp()
    expect(await find('weak_hashes=true')).not.toContain(weak.id)
    await setHash(weak, hash)
    expect(await find('weak_hashes=true')).toContain(weak.id)
  })

  test('leaves out a stronger one, and one of today', async () => {
    const strong = await assay.signUp()
    await setHash(strong, STRONGER)
    const found = await find('weak_hashes=true')
    expect(found).not.toContain(strong.id)
    await assay.request(`/admin/customers/${found[0]}/password`, {
      method: 'PUT',
      headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
      body: JSON.stringify({ password: 'a password of today' }),
    })
    expect(await find('weak_hashes=true')).not.toContain(found[0])
  })
})

describe('unused_for', () => {
  const query = `unused_for=${30 * DAY}`
  /** A day and an hour more than the filter asks for. */
  const unused = async () => {
    customer = await assay.signUp()
    await age(customer, 31)
    return customer
  }

  test('finds a customer that was not used, and not a new one', async () => {
    const [old, young] = [await unused(), await assay.signUp()]
    const found = await find(query)
    expect(found).toContain(old.id)
    expect(found).not.toContain(young.id)
    expect(await find(`unused_for=${32 * DAY}`)).not.toContain(old.id)
  })

  test.each<[string, (customer: Customer) => Promise<{ status: number }>]>([
    ['an issued token', one => one.issue()],
    ['a login', ({ email, password }) => assay.postJson('/api/auth/login', { email, password })],
    ['a refresh', async ({ refreshToken }) => assay.refresh(refreshToken)],
    ['a use of an API key', one => assay.postForm('/introspect', { token: 'x' }, bearer(one.apiKey))],
  ])('leaves it out after %s', async (_, use) => {
    const old = await unused()
    expect((await use(old)).status).toBeLessThan(300)
    await expect.poll(() => find(query)).not.toContain(old.id)
  })

  test('finds it again when the time has passed', async () => {
    const once = await unused()
    await once.issue()
    expect(await find(query)).not.toContain(once.id)
    await world.advance(32 * DAY * 1000)
    expect(await find(query)).toContain(once.id)
  })
})

test('criteria are combined: a customer has to meet all of them', async () => {
  const [both, one] = [await assay.signUp(), await assay.signUp()]
  for (const each of [both, one]) await setHash(each, WEAK)
  await age(both, 400)
  const found = await find(`weak_hashes=true&unused_for=${365 * DAY}&keys_older_than=${365 * DAY}`)
  expect(found).toContain(both.id)
  expect(found).not.toContain(one.id)
})

test.each([
  'weak_hashes=false',
  'weak_hashes=1',
  'keys_older_than=0',
  'keys_older_than=90d',
  'keys_older_than=-1',
  'keys_older_than=1000000000',
  'unused_for=1e3',
  'unused_for=1.5',
  'weak_hashes=true&email=a',
  'unused_for=1&name=a',
  'keys_older_than=1&cursor=x',
])('%s is refused', async query => {
  const { status, json } = await list(query)
  expect([status, json.error]).toEqual([400, 'invalid_request'])
  expect(json.detail).toMatch(/weak_hashes|keys_older_than|unused_for|cursor/)
})

describe('with 100,000 customers', () => {
  const MANY = 100_000

  /** Rows of one statement, which has to end before the deadline of a call. */
  const ROWS = 5_000

  beforeAll(async () => {
    for (let first = 1; first <= MANY; first += ROWS) await addCustomers(first, first + ROWS - 1)
    await world.admin.query('analyze assay.customers, assay.signing_keys, assay.api_keys')
  })

  const addCustomers = (first: number, last: number) =>
    world.admin.query(
      `with added as (
         insert into assay.customers (id, email, password_hash, sealed_data_key, created_at)
         select id, id || '@example.com', '${STRONGER}', '\\x00', at
         from generate_series($1::int, $2::int) as n,
           lateral (select lpad(translate(n::text, '0189', 'abcd'), 16, 'z') as id,
             assay.now() - interval '1 day' * (n % 100) as at) as made
         returning id, created_at)
       insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret, created_at)
       select id, use, 1, 'current', 'HS512', '\\x00', created_at from added, unnest(array['access', 'refresh']) as use`,
      [first, last],
    )

  const LOOKED_AT = 2_000

  test('a page looks at 2,000 of them, and says where the next one begins', async () => {
    const first = await list('weak_hashes=true&limit=100')
    const second = await list(`weak_hashes=true&limit=100&cursor=${first.json.next_cursor}`)
    expect(second.status).toBe(200)
    expect(second.json.customers).toEqual([])
    expect(second.json.next_cursor).toMatch(/\w/)
  })

  test('all pages together find every match once', async () => {
    const found: string[] = []
    let pages = 0
    for (let cursor: string | undefined = ''; cursor !== undefined; pages++) {
      const { json }: { json: { customers: { id: string }[]; next_cursor?: string } } = await list(
        `weak_hashes=true&unused_for=${365 * DAY}&limit=100${cursor && `&cursor=${cursor}`}`,
      )
      found.push(...json.customers.map(({ id }) => id))
      cursor = json.next_cursor
    }
    expect(pages).toBeGreaterThan(MANY / LOOKED_AT)
    expect(pages).toBeLessThan(MANY / LOOKED_AT + 5)
    expect(new Set(found).size).toBe(found.length)
    expect(found.length).toBeGreaterThan(0)
  })

  interface Plan {
    'Relation Name'?: string
    'Index Name'?: string
    'Actual Rows': number
    'Actual Loops': number
    'Shared Hit Blocks': number
    'Shared Read Blocks': number
    Plans?: Plan[]
  }
  const nodesOf = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodesOf)]

  /** The plan of the statement as it ran, for a page of 100 that begins so many days ago. */
  async function explain(daysAgo: number): Promise<Plan> {
    let plans: { 'QUERY PLAN': [{ Plan: Plan }] }[] = []
    const explained = {
      async values(text: string, params?: readonly unknown[]) {
        plans = await world.admin.query(`explain (analyze, buffers, format json) ${text}`, params)
        return []
      },
    }
    const criteria = { keysOlderThan: 1, minMemoryKib: 1e6, minPasses: 9, unusedFor: 1 }
    const beforeAt = new Date(assay.changeFeed.now() - daysAgo * DAY * 1000)
    await listMatchingCustomers(explained, { ...criteria, beforeAt, beforeId: 'a', limit: 101 })
    return plans[0]!['QUERY PLAN'][0].Plan
  }

  test.each([0, 40, 80])(
    'a page that begins %i days ago reads 2,000 customers of an index, and what belongs to them',
    async daysAgo => {
      const plan = await explain(daysAgo)
      const read = nodesOf(plan).filter(node => node['Relation Name'] === 'customers')
      expect(read.map(node => node['Index Name'])).toEqual(['customers_listed'])
      expect(read[0]!['Actual Rows'] * read[0]!['Actual Loops']).toBeLessThanOrEqual(LOOKED_AT)
      expect(plan['Shared Hit Blocks'] + plan['Shared Read Blocks']).toBeLessThan(LOOKED_AT * 15)
    },
  )
})
