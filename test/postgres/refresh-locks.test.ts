import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { control } from '../support/database.ts'
import { makeWorld, type Replica, type World } from '../support/world.ts'

/** Refreshes share statements; none has to wait for what another one meets. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld({ REFRESH_POLICY: 'strict' })
  assay = await world.replica()
})
afterAll(() => world.stop())

/** Locks rows until it is told to let go. */
async function lock(rows: string) {
  const sql = control(world.url!)
  let letGo = () => {}
  const released = new Promise<void>(resolve => {
    letGo = resolve
  })
  const locked = Promise.withResolvers<void>()
  const done = sql.begin(async transaction => {
    await transaction.unsafe(`select 1 from ${rows} for update`)
    locked.resolve()
    await released
  })
  onTestFinished(async () => {
    letGo()
    await done
    await sql.end()
  })
  await locked.promise
  return { letGo }
}

const statusesOf = async (tokens: string[]) =>
  (await Promise.all(tokens.map(token => assay.refresh(token)))).map(({ status }) => status)

const sessions = async (many: number) => {
  const customer = await assay.signUp()
  return Promise.all(Array.from({ length: many }, () => customer.session()))
}

test('a session whose row is locked keeps no other one waiting', async () => {
  const [stuck, ...others] = await sessions(20)
  const { letGo } = await lock(`assay.sessions where id = '${stuck!.session_id}'`)
  let answered = false
  const late = [1, 2].map(() => assay.refresh(stuck!.refresh_token).finally(() => (answered = true)))
  expect(await statusesOf(others.map(({ refresh_token }) => refresh_token))).toEqual(others.map(() => 200))
  expect(answered).toBe(false)
  letGo()
  const statuses = (await Promise.all(late)).map(({ status }) => status)
  expect(statuses.sort()).toEqual([200, 400])
})

test('a token that is used again waits for the bus to end its session; others do not', async () => {
  const [stolen, ...others] = await sessions(20)
  expect((await assay.refresh(stolen!.refresh_token)).status).toBe(200)
  const { letGo } = await lock('assay.bus')
  let answered = false
  const late = assay.refresh(stolen!.refresh_token).finally(() => (answered = true))
  expect(await statusesOf(others.map(({ refresh_token }) => refresh_token))).toEqual(others.map(() => 200))
  expect(answered).toBe(false)
  letGo()
  expect((await late).status).toBe(400)
  expect((await assay.verify(stolen!.access_token)).status).toBe(401)
})
