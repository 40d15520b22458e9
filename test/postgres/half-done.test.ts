import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Database, open } from '../../db/client.ts'
import { ACTS, type Act, type Stage, stageFor } from '../support/acts.ts'
import { eventsAfter, everything, isBusWhole, lastEvent } from '../support/everything.ts'
import { failing, type How } from '../support/failing.ts'
import { hear } from '../support/holding.ts'
import { until } from '../support/process.ts'
import { storedSession } from '../support/sessions.ts'
import { trials } from '../support/trials.ts'
import { type Answer, makeWorld, type Replica, type World } from '../support/world.ts'

/** The counter moved and the commit failed (Keycloak #49213): in Assay an act is done completely or not at all. */

let world: World
let assay: Replica
/** Replicas that act, each over its own link, because a link whose backend has just ended may fail once more. */
let links: Database[]
let replicas: Record<How, Replica>

let faults: Awaited<ReturnType<typeof failing>>

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  links = [await open({ url: world.url! }), await open({ url: world.url! })]
  replicas = {
    raise: await world.replica({}, { link: links[0]! }),
    kill: await world.replica({}, { link: links[1]! }),
  }
  faults = await failing(world.admin)
})
afterAll(async () => {
  for (const link of links) await link.close()
  await world.stop()
})

const HOWS: How[] = ['raise', 'kill']
/** The backend is killed at COMMIT and at the first row; `npm run hazards` kills it at every row. */
const KILLED_PLACES = trials(100, 2)
/** The expected status by type of fault: a server error, or an unknown state. */
const ANSWERED: Record<How, number> = { raise: 500, kill: 503 }
/** The most rows that an act writes. */
const MOST_ROWS = 30

const NAMED = ACTS.map(act => [act.name, act] as const)

test.each(NAMED)(
  'H33 %s is done completely or not at all, whatever row or COMMIT the database fails, and then it can be done',
  async (_, act) => {
    const stage = await stageFor(world, assay, act)
    const bystander = await stage.customer.session({ subject: 'bystander' })
    const failed = await failEverywhere(act, stage)
    // Every act writes at least one row, and commits.
    expect(failed).toBeGreaterThanOrEqual(2 * HOWS.length)
    expect(await isBusWhole(world)).toBe(true)
    await hear(assay)
    const token = act.ends?.(stage)
    if (token) expect((await assay.verify(token)).status).toBe(401)
    expect((await assay.refresh(bystander.refresh_token)).status).toBe(act.endsAll ? 400 : 200)
  },
)

/**
 * Fails at COMMIT, then at the first row, at the second, and so on until there is no such row and the act is done.
 * Returns the number of failures.
 */
async function failEverywhere(act: Act, stage: Stage): Promise<number> {
  const [before, last] = [await everything(world), await lastEvent(world)]
  const places = [faults.atCommit, ...Array.from({ length: MOST_ROWS }, (_, n) => faults.atRow(n + 1))]
  let failed = 0
  for (const [place, arm] of places.entries())
    for (const how of place < KILLED_PLACES ? HOWS : (['raise'] as const)) {
      await arm(how)
      const answer = await tryOnce(act, stage, how)
      const done = answer.status === act.status
      const token = act.ends?.(stage)
      if (token) await expectVerified(replicas[how], token, done ? 401 : 200)
      const types = (await eventsAfter(world, last)).map(({ type }) => type)
      if (done) {
        expect(types.sort()).toEqual(typesOf(act, stage, answer))
        return failed
      }
      expect(answer.status).toBe(ANSWERED[how])
      expect(types).toEqual([])
      expect(await everything(world)).toEqual(before)
      failed++
    }
  throw new Error('it writes more rows than there are places')
}

async function tryOnce(act: Act, stage: Stage, how: How): Promise<Answer> {
  try {
    return await act.run({ ...stage, assay: replicas[how] })
  } finally {
    await faults.never()
  }
}

/** The replica has forgotten no completed act, and remembers no failed one. */
async function expectVerified(replica: Replica, token: string, status: number) {
  let answer = 0
  await until('a backend that ended is replaced', async () => {
    answer = (await replica.verify(token)).status
    return answer !== 503
  })
  expect(answer).toBe(status)
}

const typesOf = (act: Act, stage: Stage, answer: Answer) =>
  act
    .events(stage, answer)
    .map(({ type }) => type)
    .sort()

test('H33 a confirmation is written later or never, and its session continues', async () => {
  const customer = await assay.signUp()
  const { refresh_token } = await customer.session()
  const { json } = await assay.refresh(refresh_token)
  await assay.sessions.flush()
  await world.admin.query(`create function public.refuse() returns trigger language plpgsql
    as 'begin raise exception ''injected''; end'`)
  await world.admin.query(`create trigger refuse before update of confirmed_at on assay.sessions
    for each row when (new.confirmed_at is not null) execute function public.refuse()`)
  expect((await assay.verify(json.access_token)).status).toBe(200)
  await assay.sessions.flush()
  await world.admin.query('drop trigger refuse on assay.sessions')
  expect((await storedSession(world, json.session_id)).confirmed).toBe(false)
  // Unconfirmed, the previous token may still be retried, and the newest continues.
  expect((await assay.refresh(refresh_token)).json.refresh_token).toBe(json.refresh_token)
  expect((await assay.refresh(json.refresh_token)).status).toBe(200)
})
