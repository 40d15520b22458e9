import { afterAll, beforeAll, expect, test } from 'vitest'
import { auditOf, countsOf, randomFrom, stopClock, storedSession } from '../support/sessions.ts'
import { SEED, trials } from '../support/trials.ts'
import { type Answer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

const ROUNDS = trials(300, 30)
const TABS = 32
/** How many sessions race at the same time. */
const ABREAST = 4
const RACES = trials(10_000)
const HOUR = 3_600_000

let world: World
let one: Replica
let two: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  one = await world.replica()
  two = await world.replica()
  customer = await one.signUp()
})
afterAll(() => world.stop())

const CVES = '(CVE-2026-53517, CVE-2026-1035, CVE-2026-126280)'

test(`H30 ${TABS} concurrent refreshes of one token are one rotation and get the same answer ${CVES}`, () =>
  rotatesOncePerRound([one]))

test(`H30 ${TABS} concurrent refreshes of one token on two replicas are one rotation ${CVES}`, () =>
  rotatesOncePerRound([one, two]))

async function rotatesOncePerRound(replicas: Replica[]) {
  const { session_id: id, refresh_token } = await customer.session()
  let token = refresh_token
  for (let round = 0; round < ROUNDS; round++) token = await race(token, replicas)
  expect((await storedSession(world, id)).gen).toBe(1 + ROUNDS)
  expect(await countsOf(world, id)).toEqual({
    'token.issued': 1,
    'session.refreshed': ROUNDS,
    'session.replayed': ROUNDS * (TABS - 1),
  })
}

/** Presents one token in every tab at once. Returns its one successor. */
async function race(token: string, replicas: Replica[]): Promise<string> {
  const tabs = Array.from({ length: TABS }, (_, tab) => replicas[tab % replicas.length]!.refresh(token))
  const answers = await Promise.all(tabs)
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  expect(new Set(answers.map(({ json }) => json.access_token)).size).toBe(TABS)
  const successors = [...new Set(answers.map(({ json }) => json.refresh_token as string))]
  expect(successors).toHaveLength(1)
  expect(successors[0]).not.toBe(token)
  return successors[0]!
}

test(`H31 no token of a session is valid once its reuse was answered, whatever refreshes ran at that time, in ${RACES} races`, async () => {
  const random = randomFrom(SEED)
  for (let races = 0; races < RACES; races += ABREAST)
    await Promise.all(Array.from({ length: ABREAST }, () => raceReuse(Math.floor(random() * 8) / 2)))
})

async function raceReuse(when: number) {
  const { session_id: id, refresh_token: stolen, access_token } = await customer.session()
  let token = stolen
  for (let turn = 0; turn < 3; turn++) token = (await two.refresh(token)).json.refresh_token
  const { reuse, granted, late } = await reuseAgainstRefreshes(stolen, token, when)
  expect(reuse.status).toBe(400)
  expect(late).toBe(0)
  await expectAllDead([access_token, ...granted.map(({ json }) => json.access_token)])
  await expectRefused([token, ...granted.map(({ json }) => json.refresh_token)])
  await expectEndedBy(id, granted.length)
}

/** A client refreshes in two tabs turn by turn; the stolen token arrives in turn `when`. */
async function reuseAgainstRefreshes(stolen: string, current: string, when: number) {
  let answered = false
  let reused: Promise<Answer> | undefined
  const reuse = () => {
    reused = one.refresh(stolen).then(answer => {
      answered = true
      return answer
    })
  }
  const granted: Answer[] = []
  let late = 0
  let token = current
  for (let refused = false, turn = 0; !refused; turn++) {
    expect(turn).toBeLessThan(50)
    const wasAnswered = answered
    if (turn === when) reuse()
    const tabs = [one.refresh(token), two.refresh(token)]
    if (turn + 0.5 === when) reuse()
    const given = (await Promise.all(tabs)).filter(({ status }) => status === 200)
    granted.push(...given)
    if (wasAnswered) late += given.length
    token = given[0]?.json.refresh_token ?? token
    refused = given.length < tabs.length
  }
  return { reuse: await reused!, granted, late }
}

async function expectAllDead(accessTokens: string[]) {
  await two.changeFeed.poll()
  await two.changeFeed.poll()
  for (const replica of [one, two])
    for (const token of accessTokens) expect((await replica.verify(token)).status).toBe(401)
}

async function expectRefused(refreshTokens: string[]) {
  for (const token of new Set(refreshTokens)) {
    const { status, json } = await two.refresh(token)
    expect([status, json.error]).toEqual([400, 'invalid_grant'])
  }
}

/** The reuse is the last event, and every granted refresh has one. */
async function expectEndedBy(id: string, granted: number) {
  expect((await storedSession(world, id)).revoked).toBe(true)
  const types = (await auditOf(world, id)).map(({ type }) => type)
  expect(types.at(-1)).toBe('session.reuse_detected')
  expect(types.filter(type => type === 'session.reuse_detected')).toHaveLength(1)
  expect(types.filter(type => /refreshed|replayed/.test(type))).toHaveLength(3 + granted)
}

test.for([16, 32, 64])(
  'H34 %i tabs that share a session never log each other out, whatever answers are lost',
  async tabs => {
    const clock = await stopClock(world, [one, two])
    const random = randomFrom(SEED + tabs)
    const { session_id: id, refresh_token } = await customer.session()
    const browser = { token: refresh_token }
    for (const lossRate of [0.5, 1, 0.95, 1, 0.5, 0.9]) {
      const held = browser.token
      const lost = await openTabs(browser, held, { tabs, isLost: () => random() < lossRate })
      // Retries at once with the tab's old token, although another tab has stored and used the successor.
      await openTabs(browser, held, { tabs: lost, isLost: () => random() < lossRate })
      await clock.advance(HOUR)
    }
    expect((await one.refresh(browser.token)).status).toBe(200)
    expect((await storedSession(world, id)).revoked).toBe(false)
    expect(await countsOf(world, id)).not.toHaveProperty('session.reuse_detected')
  },
)

/**
 * Each tab refreshes; if the answer arrives it stores the new token and uses the access token. Returns how many answers
 * were lost.
 */
async function openTabs(
  browser: { token: string },
  held: string,
  { tabs, isLost }: { tabs: number; isLost: () => boolean },
): Promise<number> {
  const answers = await Promise.all(
    Array.from({ length: tabs }, (_, tab) => [one, two][tab % 2]!.refresh(held)),
  )
  expect(answers.filter(({ status }) => status !== 200)).toEqual([])
  const arrived = answers.filter(() => !isLost())
  for (const { json } of arrived) {
    browser.token = json.refresh_token
    expect((await one.verify(json.access_token)).status).toBe(200)
  }
  await one.sessions.flush()
  return answers.length - arrived.length
}
