import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { open } from '../../server/crypto/envelope.ts'
import { dataKeyContext, openRecord, readRecords } from '../../server/keys/customer-keys.ts'
import { hmacKeysOf } from '../support/forge.ts'
import { publishCustomer } from '../support/plant.ts'
import { bearer, type Customer, makeWorld, type Replica, type Tokens, type World } from '../support/world.ts'

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

/** A customer's own secrets, decrypted with the master key as the server does it. */
async function secretsOf({ id }: Customer) {
  const [row] = await readRecords(world.db, [id])
  const record = openRecord(world.keyRing, 'https://assay.test', id, row!)
  const masterKey = (name: string) => world.keyRing.masterKey(name)
  const dataKey = open(masterKey, row!.sealedDataKey!, dataKeyContext(world.keyRing, id))
  return { dataKey, signing: hmacKeysOf(record).map(({ use, secret }) => ({ use, secret })) }
}

/** Every value of every column of every table, as bytes. */
async function everyValue(): Promise<{ place: string; bytes: Buffer }[]> {
  const columns = await world.admin.query<{ table: string; column: string; type: string }>(
    `select table_name as table, column_name as column, data_type as type
    from information_schema.columns where table_schema = 'assay'`,
  )
  const values: { place: string; bytes: Buffer }[] = []
  for (const { table, column, type } of columns) {
    const value = type === 'bytea' ? `"${column}"` : `"${column}"::text`
    const rows = await world.admin.query<{ value: string | Uint8Array }>(
      `select ${value} as value from assay."${table}" where "${column}" is not null`,
    )
    for (const row of rows)
      values.push({ place: `${table}.${column}`, bytes: Buffer.from(row.value as string) })
  }
  return values
}

/** Unchanged, and in every encoding that a column, a log or a careless encoder uses for bytes. */
function spellingsOf(secret: Uint8Array | string): Buffer[] {
  const bytes = Buffer.from(secret as string)
  const hex = bytes.toString('hex')
  const base64 = bytes.toString('base64').replace(/=+$/, '')
  const texts = [hex, hex.toUpperCase(), base64, bytes.toString('base64url')]
  return [bytes, ...texts.map(text => Buffer.from(text))]
}

const placesOf = (values: { place: string; bytes: Buffer }[], secret: Uint8Array | string) =>
  values
    .filter(({ bytes }) => spellingsOf(secret).some(spelling => bytes.includes(spelling)))
    .map(({ place }) => place)

/** A customer that has made every request that could leave a secret behind. */
async function busy() {
  const customer = await assay.signUp()
  const headers = { 'Idempotency-Key': `once-${customer.id}-canary`, 'User-Agent': 'canary' }
  const session = (await customer.issue({ subject: 'u', refresh: true }, headers)).json as Tokens
  const rotated = (await assay.refresh(session.refresh_token)).json as Tokens
  await assay.postForm('/revoke', { token: rotated.access_token }, bearer(customer.apiKey))
  const login = { email: customer.email, password: 'a wrong password canary' }
  await assay.postJson('/api/auth/login', login)
  await assay.postJson('/api/auth/login', { ...login, email: 'password.typed@as-an-email.canary' })
  const { api_key: second } = (await assay.postJson('/api/keys', {}, bearer(customer.accessToken))).json
  return { customer, session, rotated, second, typed: [login.password, 'password.typed@as-an-email.canary'] }
}

const randomPartOf = (apiKey: string) => apiKey.split('_')[3]!
const signatureOf = (token: string) => token.split('.')[2]!

test('no column contains a plaintext secret in any encoding', async () => {
  const customers = await Promise.all([busy(), busy(), busy()])
  await assay.clients.flush()
  const secrets: (Uint8Array | string)[] = [world.keyRing.installationKey, world.keyRing.current.bytes]
  for (const { customer, session, rotated, second, typed } of customers) {
    const { dataKey, signing } = await secretsOf(customer)
    const tokens = [customer.accessToken, customer.refreshToken, session, rotated].flatMap(token =>
      typeof token === 'string' ? token : [token.access_token, token.refresh_token],
    )
    secrets.push(dataKey, ...signing.map(({ secret }) => secret))
    secrets.push(...tokens, ...tokens.map(signatureOf), customer.password, ...typed)
    secrets.push(customer.apiKey, randomPartOf(customer.apiKey), second, randomPartOf(second))
    secrets.push(`once-${customer.id}-canary`)
  }
  const values = await everyValue()
  for (const secret of secrets) expect(placesOf(values, secret)).toEqual([])
  // The search finds values that do exist, as text and as bytes.
  const { customer } = customers[0]!
  expect(placesOf(values, customer.email)).toEqual(['customers.email'])
  const [row] = await readRecords(world.db, [customer.id])
  expect(placesOf(values, row!.sealedDataKey!)).toEqual(['customers.sealed_data_key'])
})

test('each customer has two secrets of 64 bytes of its own', async () => {
  const customers = [await assay.signUp(), await assay.signUp()]
  const opened = await Promise.all(customers.map(secretsOf))
  for (const { signing } of opened) {
    expect(signing.map(({ use }) => use).sort()).toEqual(['access', 'refresh'])
    for (const { secret } of signing) expect(secret).toHaveLength(64)
  }
  const all = opened.flatMap(({ dataKey, signing }) => [dataKey, ...signing.map(({ secret }) => secret)])
  expect(new Set(all.map(bytes => bytes.toString('hex'))).size).toBe(6)
})

/** The sealed values of a customer, and their columns. */
const RECORDS = {
  'data key': ['customers', 'sealed_data_key', 'id = $1'],
  'access secret': ['signing_keys', 'sealed_secret', `customer_id = $1 and use = 'access'`],
  'refresh secret': ['signing_keys', 'sealed_secret', `customer_id = $1 and use = 'refresh'`],
} as const
type Sealed = keyof typeof RECORDS
const NAMES = Object.keys(RECORDS) as Sealed[]

async function sealed({ id }: Customer, name: Sealed): Promise<Buffer> {
  const [table, column, which] = RECORDS[name]
  const [row] = await world.admin.query<{ sealed: Uint8Array }>(
    `select ${column} as sealed from assay.${table} where ${which}`,
    [id],
  )
  return Buffer.from(row!.sealed)
}

async function write({ id }: Customer, name: Sealed, bytes: Buffer) {
  const [table, column, which] = RECORDS[name]
  await world.admin.query(`update assay.${table} set ${column} = $2 where ${which}`, [id, bytes])
  await publishCustomer(world, id, [assay])
}

describe('H54', () => {
  let victim: Customer
  let bystander: Customer
  let session: Tokens
  let records: [name: Sealed, bytes: Buffer][]

  beforeAll(async () => {
    victim = await assay.signUp()
    bystander = await assay.signUp()
    session = await victim.session()
    records = await Promise.all(
      NAMES.map(async name => [name, await sealed(victim, name)] as [Sealed, Buffer]),
    )
  })

  /** All requests that need the customer's secrets or credentials. */
  async function expectAll(status: number) {
    const asked = [
      await assay.verify(session.access_token),
      await assay.introspect(session.access_token),
      await assay.refresh(session.refresh_token),
      await victim.issue(),
    ]
    expect(asked.map(answer => answer.status)).toEqual([status, status, status, status])
    expect((await assay.verify(bystander.accessToken)).status).toBe(200)
  }

  async function expectMended() {
    for (const [name, bytes] of records) await write(victim, name, bytes)
    await expectAll(200)
  }

  test.each(NAMES)('flipping any bit of the sealed %s is detected, and affects nobody else', async name => {
    const whole = await sealed(victim, name)
    // A hundredth of the bits, in every part of the record; steps of 97 reach each position within a byte.
    for (let bit = 0; bit < whole.length * 8; bit += 97) {
      const flipped = Buffer.from(whole)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      await write(victim, name, flipped)
      expect((await assay.verify(session.access_token)).status, `bit ${bit}`).toBe(503)
      expect((await assay.verify(bystander.accessToken)).status).toBe(200)
    }
    await expectAll(503)
    await expectMended()
  })

  test.each([
    ['shorter', (whole: Buffer) => whole.subarray(0, -1)],
    ['longer', (whole: Buffer) => Buffer.concat([whole, Buffer.of(0)])],
    ['empty', () => Buffer.alloc(0)],
    ['64 bytes in clear', () => Buffer.alloc(64, 7)],
  ])('a sealed record that is %s cannot be decrypted', async (_, alter) => {
    for (const [name, bytes] of records) {
      await write(victim, name, alter(bytes))
      await expectAll(503)
      await expectMended()
    }
  })

  test.each([
    ["another customer's data key", ['data key']],
    ["another customer's secret", ['access secret']],
    ['all that another customer seals', NAMES],
  ])('a record cannot be decrypted in another place: %s', async (_, moved) => {
    for (const name of moved as Sealed[]) await write(victim, name, await sealed(bystander, name))
    await expectAll(503)
    await expectMended()
  })

  test('a record cannot be decrypted in another place: the secret of the other use', async () => {
    await write(victim, 'access secret', await sealed(victim, 'refresh secret'))
    await expectAll(503)
    await expectMended()
  })

  test('a record cannot be decrypted in another place: the secret of another version', async () => {
    await world.admin.query(
      `insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret)
      select customer_id, use, 2, 'previous', alg, sealed_secret from assay.signing_keys
      where customer_id = $1 and use = 'access'`,
      [victim.id],
    )
    await publishCustomer(world, victim.id, [assay])
    await expectAll(503)
    await world.admin.query('delete from assay.signing_keys where customer_id = $1 and version = 2', [
      victim.id,
    ])
    await expectMended()
  })
})
