import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { control } from '../support/database.ts'
import { storedSession } from '../support/sessions.ts'
import { type Answer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Refreshes share statements, and none waits for a lock of another one. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld({ REFRESH_POLICY: 'strict' })
  assay = await world.replica()
})
afterAll(() => world.stop())

/** Locks rows until released. */
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

/**
 * Refreshes them all at once, with the one in question in the middle: the first ones run alone, and it shares a statement
 * with the later ones.
 */
function together(first: string[], token: string, rest: string[]) {
  let answered = false
  const before = first.map(each => assay.refresh(each))
  const late = assay.refresh(token).finally(() => {
    answered = true
  })
  const others = Promise.all([...before, ...rest.map(each => assay.refresh(each))])
  return { late, others, answered: () => answered }
}

const sessions = async (many: number) => {
  const customer = await assay.signUp()
  return Promise.all(Array.from({ length: many }, () => customer.session()))
}

const refreshTokens = (of: { refresh_token: string }[]) => of.map(({ refresh_token }) => refresh_token)

test('a session whose row is locked delays no other one', async () => {
  const [stuck, ...others] = await sessions(20)
  const { letGo } = await lock(`assay.sessions where id = '${stuck!.session_id}'`)
  const tokens = refreshTokens(others)
  const sent = together(tokens.slice(0, 4), stuck!.refresh_token, tokens.slice(4))
  for (const { status } of await sent.others) expect(status).toBe(200)
  expect(sent.answered()).toBe(false)
  const again = assay.refresh(stuck!.refresh_token)
  letGo()
  const statuses = (await Promise.all([sent.late, again])).map(({ status }) => status)
  expect(statuses.sort()).toEqual([200, 400])
})

test('a reused token waits for the change feed to end its session; others do not', async () => {
  const [stolen, ...others] = await sessions(20)
  expect((await assay.refresh(stolen!.refresh_token)).status).toBe(200)
  const { letGo } = await lock('assay.change_feed')
  const tokens = refreshTokens(others)
  const sent = together(tokens.slice(0, 4), stolen!.refresh_token, tokens.slice(4))
  for (const { status } of await sent.others) expect(status).toBe(200)
  expect(sent.answered()).toBe(false)
  letGo()
  expect((await sent.late).status).toBe(400)
  expect((await assay.verify(stolen!.access_token)).status).toBe(401)
})

test('a confirmation whose row is locked waits for it, and delays no other one', async () => {
  const [stuck, free] = await sessions(2)
  const [{ json: mine }, { json: other }] = (await Promise.all(
    [stuck!, free!].map(({ refresh_token }) => assay.refresh(refresh_token)),
  )) as [Answer, Answer]
  const { letGo } = await lock(`assay.sessions where id = '${stuck!.session_id}'`)
  for (const { access_token } of [mine, other]) await assay.verify(access_token)
  const written = assay.sessions.flush()
  await expect.poll(() => storedSession(world, other.session_id)).toMatchObject({ confirmed: true })
  letGo()
  await written
  expect((await storedSession(world, stuck!.session_id)).confirmed).toBe(true)
})
