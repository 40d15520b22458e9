import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Database, open } from '../../db/client.ts'
import { ACTS, type Act, FROM, type Stage, stageFor } from '../support/acts.ts'
import { eventsAfter, everything, isBusWhole, lastEvent } from '../support/everything.ts'
import { hear } from '../support/holding.ts'
import { type Link, openLink } from '../support/link.ts'
import { until } from '../support/process.ts'
import { type Answer, makeWorld, type Replica, type World } from '../support/world.ts'

/** The link to the database is cut during an act: before the act arrives, or when it is done and its answer is in transit. */

let world: World
let assay: Replica
let link: Link
let database: Database
/** The replica that acts, over the link that is cut. */
let acting: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  link = await openLink(world.url!)
  database = await open({ url: link.url })
  acting = await world.replica({}, { link: database })
})
afterAll(async () => {
  await world.stop()
  await database.close()
  link.close()
})

/** Every statement that acts names its caller; statements that only read do not. */
const MARKER = FROM.userAgent

const NAMED = ACTS.map(act => [act.name, act] as const)

/** The answers to acts that are repeated after their first answer was lost. All others are answered as at first. */
const REPEATED: Record<string, number> = {
  'signing up': 409,
  'ending a session by API key': 404,
  'ending a session as the customer': 404,
  'logging out': 401,
  'changing the password': 401,
  'resetting the password': 400,
  'verifying the address': 400,
  'changing the address': 400,
  'revoking a customer': 401,
  'rotating the access secret at once': 401,
  'rotating both secrets at once': 401,
  'deleting an API key': 404,
}

/** This act first looks something up in a statement that changes nothing; the answer of that statement is lost. */
const ASKS_FIRST = ['retrying an issue under its Idempotency-Key', 'a reuse']

const run = (act: Act, stage: Stage): Promise<Answer> => act.run({ ...stage, assay: acting })

test.each(NAMED)(
  'H33 %s is not done if the link is cut before it arrives, and can be done afterwards',
  async (_, act) => {
    const stage = await stageFor(world, assay, act)
    const [before, last] = [await everything(world), await lastEvent(world)]
    link.set({ resetAt: MARKER })
    const cut = await run(act, stage)
    await link.fair()
    expect(cut.status).toBe(503)
    expect(await everything(world)).toEqual(before)
    expect(await eventsAfter(world, last)).toEqual([])
    expect((await repeat(act, stage)).status).toBe(act.status)
  },
)

test.each(NAMED)(
  'H33 %s is done if its answer is lost, and a client can retry without harm',
  async (_, act) => {
    const stage = await stageFor(world, assay, act)
    const bystander = await stage.customer.session({ subject: 'bystander' })
    const last = await lastEvent(world)
    link.set({ resetAtAnswerTo: MARKER })
    const lost = await run(act, stage)
    await link.fair()
    expect(lost.status).toBe(503)
    const types = (await eventsAfter(world, last)).map(({ type }) => type).sort()
    const asksFirst = ASKS_FIRST.includes(act.name)
    expect(types).toEqual(asksFirst ? [] : typesOf(act, stage))
    expect(await isBusWhole(world)).toBe(true)
    if (!asksFirst) await expectEnded(act, stage)
    expect((await repeat(act, stage)).status).toBe(REPEATED[act.name] ?? act.status)
    await expectEnded(act, stage)
    expect((await assay.refresh(bystander.refresh_token)).status).toBe(act.endsAll ? 400 : 200)
  },
)

/** Retries as a client does after a 503. */
async function repeat(act: Act, stage: Stage): Promise<Answer> {
  let answer = await run(act, stage)
  await until('its link is whole again', async () => {
    if (answer.status === 503) answer = await run(act, stage)
    return answer.status !== 503
  })
  return answer
}

/** The events of an act whose answer was lost. */
function typesOf(act: Act, stage: Stage): string[] {
  const { id, apiKey, accessToken } = stage.customer
  const json = { access_token: accessToken, api_key: apiKey, customer: { id }, id }
  const events = act.events(stage, { status: act.status, headers: new Headers(), text: '', json })
  return events.map(({ type }) => type).sort()
}

/** Tokens that the lost act ended are refused, also by the replica that acted. */
async function expectEnded(act: Act, stage: Stage) {
  const token = act.ends?.(stage)
  if (!token) return
  await hear(assay, acting)
  for (const replica of [assay, acting]) expect((await replica.verify(token)).status).toBe(401)
}
