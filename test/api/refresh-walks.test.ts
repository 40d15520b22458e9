import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Column, Policy } from '../support/refresh-cells.ts'
import { IDLE, IN_ALL, Model, type Outcome } from '../support/refresh-model.ts'
import { randomFrom, type StoppedClock, stopClock } from '../support/sessions.ts'
import { SEED, trials } from '../support/trials.ts'
import { type Answer, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** A walk can be repeated with its number and the seed. */
const WALKS = trials(100_000)
const STEPS = 10
/** Walks that run in parallel and share a clock. */
const ABREAST = 125

const POLICIES = ['until_confirmed', 'grace_only', 'strict', 'reusable'] as const
/** The policies of the walks, in turn; `any` takes a different one on each refresh. */
const KINDS = ['until_confirmed', 'until_confirmed', 'grace_only', 'strict', 'reusable', 'any'] as const
type Kind = (typeof KINDS)[number]

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
/** The default ACCESS_TOKEN_TTL. */
const ACCESS = 5 * MINUTE
/** No sum of the short waits equals the grace. */
const SHORT = [0, 0, 0, 4, 4, 7, 7, 12, 12].map(seconds => seconds * SECOND)
const WAITS = [...SHORT, ...SHORT, HOUR, HOUR, 4 * HOUR]

interface Held {
  gen: number
  text: string
  exp: number
}

/** A client that forgets tokens, loses answers, presents old tokens and uses its access tokens at random times. */
class Walk {
  readonly #random: () => number
  readonly #kind: Kind
  readonly #model: Model
  readonly #refreshTokens: Held[]
  readonly #accessTokens: Held[]
  readonly #seen = new Set<number>()
  /** The current refresh token, whether or not its answer was lost. */
  #current: string
  #before = ''
  readonly id: string
  readonly name: string

  constructor(start: {
    name: string
    random: () => number
    kind: Kind
    now: number
    json: Answer['json']
  }) {
    const { name, random, kind, now, json } = start
    this.name = name
    this.id = json.session_id
    this.#random = random
    this.#kind = kind
    this.#model = new Model(now)
    this.#current = json.refresh_token
    this.#refreshTokens = [{ gen: 1, text: json.refresh_token, exp: this.#model.endsAt }]
    this.#accessTokens = [{ gen: 1, text: json.access_token, exp: now + ACCESS }]
  }

  /** The expected state of the database and the audit at the end. */
  get expected() {
    const { gen, ended, counts } = this.#model
    return { id: this.id, gen, ended, counts }
  }

  async step(now: number) {
    const dice = this.#random()
    if (dice < 0.7) await this.#refresh(now)
    else if (dice < 0.95) await this.#use(now)
    else if (dice < 0.98) await this.#goBack()
    else await this.#logOut(now)
  }

  /**
   * Usually the newest token; otherwise the previous one, or any. A replica's own clock runs on, so a token in its last
   * minute is never used.
   */
  #pick(held: Held[], now: number): Held | undefined {
    const dice = this.#random()
    const back = dice < 0.6 ? 0 : dice < 0.8 ? 1 : Math.floor(this.#random() * held.length)
    const picked = held.at(-1 - back) ?? held[0]!
    return picked.exp > now && picked.exp - now < MINUTE ? undefined : picked
  }

  async #refresh(now: number) {
    const token = this.#pick(this.#refreshTokens, now)
    if (!token || this.#isInLastMinute(now)) return
    const column = this.#column()
    const expected = token.exp <= now ? 'refused' : this.#model.present(token.gen, now, column)
    const answer = await replicas[column.policy].refresh(
      token.text,
      column.authenticated ? bearer(customer.apiKey) : {},
    )
    expect(this.#outcomeOf(answer), this.name).toBe(ANSWERED[expected])
    if (answer.status !== 200) return
    if (expected !== 'replayed' && expected !== 'renewed') this.#before = this.#current
    this.#current = answer.json.refresh_token
    if (this.#random() < 0.3) return // The answer was lost.
    const { gen, expiresAt, endsAt } = this.#model
    if (!this.#refreshTokens.some(({ text }) => text === this.#current))
      this.#refreshTokens.push({ gen, text: this.#current, exp: endsAt })
    this.#accessTokens.push({ gen, text: answer.json.access_token, exp: Math.min(now + ACCESS, expiresAt) })
  }

  /** The policy of this refresh, and whether it is authenticated with an API key. */
  #column(): Column {
    const any = POLICIES[Math.floor(this.#random() * POLICIES.length)]!
    const policy = this.#kind === 'any' ? any : this.#kind
    return { policy, authenticated: this.#random() < 0.6 }
  }

  #isInLastMinute(now: number) {
    const left = this.#model.expiresAt - now
    return left > 0 && left < MINUTE
  }

  #outcomeOf({ status, json }: Answer) {
    if (status !== 200) return json.error
    return json.refresh_token === this.#current ? 'the same' : 'a new one'
  }

  /** The first use of an access token anywhere confirms that the client has that generation. */
  async #use(now: number) {
    const token = this.#pick(this.#accessTokens, now)
    if (!token) return
    const model = this.#model
    const live = token.exp > now && !model.ended
    expect((await this.#anyReplica().verify(token.text)).status, this.name).toBe(live ? 200 : 401)
    if (!live || token.gen === 1 || this.#seen.has(token.gen)) return
    this.#seen.add(token.gen)
    if (token.gen === model.gen) model.confirmedAt ??= now
  }

  async #goBack() {
    const model = this.#model
    if (!model.goBack()) return
    this.#current = this.#before
    const { gen, rotatedAt, previousRotatedAt, confirmedAt, expiresAt } = model
    const times = [rotatedAt, previousRotatedAt, confirmedAt, expiresAt]
    await world.admin.query(
      `update assay.sessions set gen = $2, rotated_at = to_timestamp($3::float8), prev_rotated_at = to_timestamp($4::float8),
        confirmed_at = to_timestamp($5::float8), expires_at = to_timestamp($6::float8)
      where id = $1`,
      [this.id, gen, ...times.map(time => (time === undefined ? null : time / SECOND))],
    )
  }

  #anyReplica = () => replicas[this.#column().policy]

  async #logOut(now: number) {
    const token = this.#pick(this.#refreshTokens, now)
    if (!token || token.exp <= now) return
    this.#model.ended = true
    expect((await this.#anyReplica().postForm('/revoke', { token: token.text })).status).toBe(200)
  }
}

const ANSWERED: Record<Outcome, string> = {
  refreshed: 'a new one',
  adopted: 'a new one',
  kept: 'a new one',
  renewed: 'the same',
  replayed: 'the same',
  reuse_detected: 'invalid_grant',
  refused: 'invalid_grant',
}

let world: World
let replicas: Record<Policy, Replica>
let customer: Customer
let clock: StoppedClock

beforeAll(async () => {
  world = await makeWorld({ REFRESH_TOKEN_TTL: `${IDLE}ms`, SESSION_MAX_TTL: `${IN_ALL}ms` })
  const at = (policy: Policy) => world.replica({ REFRESH_POLICY: policy })
  replicas = {
    until_confirmed: await at('until_confirmed'),
    grace_only: await at('grace_only'),
    strict: await at('strict'),
    reusable: await at('reusable'),
  }
  customer = await replicas.strict.signUp()
  clock = await stopClock(world, Object.values(replicas))
})
afterAll(() => world.stop())

test(`H32 ${WALKS} random walks of refreshes follow the table at every step`, async () => {
  const seen = new Set<string>()
  for (let first = 0; first < WALKS; first += ABREAST) {
    const random = randomFrom(SEED + first)
    const since = clock.now()
    const walks = await Promise.all(
      Array.from({ length: Math.min(ABREAST, WALKS - first) }, (_, nth) => begin(first + nth)),
    )
    for (let step = 0; step < STEPS; step++) {
      await Promise.all(walks.map(walk => walk.step(clock.now())))
      for (const replica of Object.values(replicas)) await replica.sessions.flush()
      await clock.advance(WAITS[Math.floor(random() * WAITS.length)]!)
    }
    await expectStored(walks, since)
    for (const walk of walks) for (const outcome of Object.keys(walk.expected.counts)) seen.add(outcome)
  }
  // The walks must reach every outcome, otherwise they prove nothing.
  expect([...seen].sort()).toEqual(['adopted', 'refreshed', 'replayed', 'reuse_detected'])
})

async function begin(nth: number): Promise<Walk> {
  const kind = KINDS[nth % KINDS.length]!
  const { json } = await customer.issue({ subject: `walker-${nth}`, refresh: true })
  const random = randomFrom(SEED * 1_000_003 + nth)
  const name = `walk ${nth} of seed ${SEED}, ${kind}`
  return new Walk({ name, random, kind, now: clock.now(), json })
}

async function expectStored(walks: Walk[], since: number) {
  const rows = await world.admin.query<{ id: string }>(
    `with counted as (
      select session_id, json_object_agg(type, times) as counts from (
        select session_id, replace(type, 'session.', '') as type, count(*) as times from assay.audit_events
        where customer_id = $1 and at >= $2 and type not in ('token.issued', 'session.revoked')
        group by session_id, type
      ) by_type group by session_id
    )
    select id, gen, revoked_at is not null as ended, coalesce(counts, '{}') as counts
    from assay.sessions left join counted on session_id = id
    where customer_id = $1 and id = any($3::text[])`,
    [customer.id, new Date(since).toISOString(), `{${walks.map(({ id }) => id).join(',')}}`],
  )
  const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1)
  expect([...rows].sort(byId)).toEqual(walks.map(walk => walk.expected).sort(byId))
}
