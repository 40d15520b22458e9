import postgres from 'postgres'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { direct } from '../support/database.ts'
import { linkTo, replicaOn } from '../support/holding.ts'
import { until } from '../support/process.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** A read-only server, such as a standby, is not a primary: no decision is based on its answers. */

const N = 1_000
let world: World
let here: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld({ MAX_STALENESS: `${N}ms` })
  here = await world.replica()
  customer = await here.signUp()
})
afterAll(() => world.stop())

const database = () => new URL(world.url!).pathname.slice(1)

/** Applies to connections that are opened from now on. */
async function setReadOnly(value: 'on' | 'off') {
  const sql = postgres(inject('databaseUrl'), { max: 1 })
  await sql.unsafe(`alter database ${database()} set default_transaction_read_only = ${value}`)
  await sql.end()
}

const issueAt = (replica: Pick<Replica, 'request'>) =>
  replica.request('/issue', {
    method: 'POST',
    headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json' },
    body: '{}',
  })

test('read-only connections answer nothing but 503, and everything works once they can write again', async () => {
  const link = await linkTo(direct(world.url!))
  const replica = await replicaOn(world, link, { MAX_STALENESS: `${N}ms` })
  const { access_token: token } = await customer.session()
  expect((await replica.verify(token)).status).toBe(200)
  await setReadOnly('on')
  await world.admin.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`,
  )
  const seen = new Set<number>()
  await until('the bound has passed', async () => {
    const { status } = await replica.verify(token)
    seen.add(status)
    return status === 503
  })
  expect([...seen].filter(status => status !== 200)).toEqual([503])
  const issued = await issueAt(replica)
  expect(issued.status).toBe(503)
  expect(issued.headers.get('retry-after')).toBe('1')
  expect((await replica.verify(token)).status).toBe(503)
  const { json } = await replica.request('/readyz')
  expect(json.checks).toMatchObject({ state: 'failed', database: 'ok', migrations: 'unknown' })
  await setReadOnly('off')
  const began = performance.now()
  await until('it verifies again', async () => (await replica.verify(token)).status === 200)
  await until('it issues again', async () => (await issueAt(replica)).status === 200)
  const took = Math.round(performance.now() - began)
  process.stdout.write(`after read-only: everything works again ${took} ms later\n`)
  expect(took).toBeLessThan(1_500)
})
