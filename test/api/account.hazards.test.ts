import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { MAX_PASSWORD_THREADS } from '../../server/crypto/password-threads.ts'
import { ConcurrencyLimit } from '../../server/lib/concurrency-limit.ts'
import { RateLimitedError } from '../../server/lib/errors.ts'
import { countHashes } from '../support/hasher.ts'
import { setState } from '../support/plant.ts'
import { type Answer, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let hasher: Awaited<ReturnType<typeof countHashes>>

beforeAll(async () => {
  world = await makeWorld()
  hasher = await countHashes()
})
afterAll(async () => {
  hasher.stop()
  await world.stop()
})

/** The limits of server/lib/rate-limiter.ts, in attempts per minute. */
const PER_ADDRESS = 60
const PER_EMAIL = 10
const SIGNUPS = 20
/** The concurrency limit of server/services.ts. */
const CORES = MAX_PASSWORD_THREADS
const QUEUE = 64

const count = (answers: Answer[], status: number) => answers.filter(answer => answer.status === status).length
const times = <Made>(n: number, make: (i: number) => Made) => Array.from({ length: n }, (_, i) => make(i))

const logIn = (assay: Replica, body: object, init: { ip?: string; headers?: Record<string, string> } = {}) =>
  assay.request('/api/auth/login', {
    ...init,
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...init.headers },
    body: JSON.stringify({ email: 'unknown@example.com', password: 'a guess', ...body }),
  })

describe('the limits', () => {
  // Each replica has its own buckets, which end with the test.
  let assay: Replica
  beforeEach(async () => {
    assay = await world.replica({ TRUST_PROXY: '' })
  })

  test('H43 (CVE-2026-110861) of 200 parallel logins to one account, exactly the limit reaches the hasher', async () => {
    let answers: Answer[] = []
    const { started } = await hasher.during(async () => {
      answers = await Promise.all(times(200, () => logIn(assay, {}, { ip: '203.0.113.1' })))
    })
    expect(started).toBe(PER_EMAIL)
    expect([count(answers, 401), count(answers, 429)]).toEqual([PER_EMAIL, 200 - PER_EMAIL])
    for (const { status, headers } of answers)
      if (status === 429) expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
  })

  test('H43 (CVE-2026-110861) of 200 parallel logins from one address, exactly the limit reaches the hasher', async () => {
    const { started } = await hasher.during(() =>
      Promise.all(times(200, i => logIn(assay, { email: `user-${i}@example.com` }, { ip: '203.0.113.1' }))),
    )
    expect(started).toBe(PER_ADDRESS)
  })

  test('password guessing locks nobody out at other addresses', async () => {
    const { email, password } = await assay.signUp()
    const guesses = await Promise.all(times(30, () => logIn(assay, { email }, { ip: '203.0.113.1' })))
    expect(count(guesses, 429)).toBe(20)
    expect((await logIn(assay, { email, password }, { ip: '203.0.113.2' })).status).toBe(200)
  })

  test('the limit treats an email in another case or with spaces as the same email', async () => {
    const spelled = (i: number) => `${' '.repeat(i)}${i % 2 ? 'SAME' : 'same'}@example.com`
    const answers = await Promise.all(
      times(30, i => logIn(assay, { email: spelled(i) }, { ip: '203.0.113.1' })),
    )
    expect(count(answers, 401)).toBe(PER_EMAIL)
  })

  test('all IPv6 addresses of a /64 count as one address', async () => {
    const from = (i: number, net: number) =>
      logIn(assay, { email: `six-${i}@example.com` }, { ip: `2001:db8:1:${net}:${i}::${i}` })
    const answers = await Promise.all(times(100, i => from(i, 2)))
    expect([count(answers, 401), count(answers, 429)]).toEqual([PER_ADDRESS, 100 - PER_ADDRESS])
    expect((await from(1, 3)).status).toBe(401)
  })

  test('H42 (CVE-2026-110723, CVE-2026-111934) a thousand forged X-Forwarded-For headers count as one address', async () => {
    const answers: Answer[] = []
    for (let i = 0; i < 1_000; i++) {
      const headers = { 'X-Forwarded-For': `198.51.${i >> 8}.${i & 255}` }
      answers.push(await logIn(assay, { email: `user-${i}@example.com` }, { ip: '203.0.113.1', headers }))
    }
    expect([count(answers, 401), count(answers, 429)]).toEqual([PER_ADDRESS, 1_000 - PER_ADDRESS])
    const ips = await world.admin.query<{ ip: string }>(
      `select distinct ip from assay.audit_events where type = 'customer.login_failed' and ip like '198.51.%'`,
    )
    expect(ips).toEqual([])
  })

  test('H42 behind a trusted proxy, only the address that the proxy saw counts', async () => {
    const behind = await world.replica({ TRUST_PROXY: '127.0.0.1,10.0.0.0/8' })
    const signUp = (i: number, seen: string) =>
      behind.request('/api/auth/signup', {
        method: 'POST',
        ip: '127.0.0.1',
        headers: {
          'Content-Type': 'application/json',
          'X-Forwarded-For': `198.51.100.${i}, ${seen}, 10.0.0.7`,
        },
        body: JSON.stringify({ email: `h42-${seen}-${i}@example.com`, password: 'password of h42' }),
      })
    const answers = await Promise.all(times(50, i => signUp(i, '203.0.113.9')))
    expect([count(answers, 201), count(answers, 429)]).toEqual([SIGNUPS, 50 - SIGNUPS])
    expect((await signUp(1, '203.0.113.10')).status).toBe(201)
  })
})

describe('the hasher', () => {
  let assay: Replica
  let customer: Customer
  beforeAll(async () => {
    assay = await world.replica()
    customer = await assay.signUp()
  })

  const PASSWORD = 'correct horse battery staple'
  const disabled = async () => {
    const other = await assay.signUp()
    await setState(world, other.id, 'disabled', [assay])
    return other.email
  }

  test.each<[name: string, status: number, email: () => string | Promise<string>, password: string]>([
    ['the right password', 200, () => customer.email, PASSWORD],
    ['a wrong password', 401, () => customer.email, 'wrong'],
    ['an empty password', 401, () => customer.email, ''],
    ['the longest password', 401, () => customer.email, 'x'.repeat(256)],
    ['an unknown email', 401, () => 'nobody@example.com', PASSWORD],
    ['an unknown email and an empty password', 401, () => 'nobody@example.com', ''],
    ['an unknown email and the longest password', 401, () => 'nobody@example.com', 'x'.repeat(256)],
    ['an email that is none', 401, () => 'nobody', PASSWORD],
    ['an empty email', 401, () => '', PASSWORD],
    ['a disabled customer and the right password', 403, disabled, PASSWORD],
    ['a disabled customer and a wrong password', 401, disabled, 'wrong'],
  ])('H47 (supabase/auth #2674) runs exactly once for %s', async (_, status, emailOf, password) => {
    const email = await emailOf()
    const { started } = await hasher.during(async () => {
      expect((await logIn(assay, { email, password })).status).toBe(status)
    })
    expect(started).toBe(1)
  })

  test('H47 runs once for a signup, whether or not the email is taken', async () => {
    for (const [email, status] of [
      ['hashed-once@example.com', 201],
      ['hashed-once@example.com', 409],
    ] as const) {
      const { started } = await hasher.during(async () => {
        const answer = await assay.postJson('/api/auth/signup', { email, password: PASSWORD })
        expect(answer.status).toBe(status)
      })
      expect(started).toBe(1)
    }
  })

  test('H48 does not run for a password over 256 bytes, in any field, known email or not', async () => {
    const password = 'é'.repeat(129)
    const { started } = await hasher.during(async () => {
      for (const email of [customer.email, 'nobody@example.com'])
        expect((await logIn(assay, { email, password })).status).toBe(400)
      expect((await assay.postJson('/api/auth/signup', { email: 'a@example.com', password })).status).toBe(
        400,
      )
      for (const body of [
        { password, new_password: PASSWORD },
        { password: PASSWORD, new_password: password },
      ]) {
        const answer = await assay.postJson('/api/auth/password', body, bearer(customer.accessToken))
        expect(answer.status).toBe(400)
      }
    })
    expect(started).toBe(0)
  })

  test('H48 runs on all cores at most, queues some requests, and refuses the rest with Retry-After', async () => {
    let answers: Answer[] = []
    const { started, most } = await hasher.during(async () => {
      answers = await Promise.all(times(200, i => logIn(assay, { email: `flood-${i}@example.com` })))
    })
    expect(most).toBeLessThanOrEqual(CORES)
    // At least the running and queued ones start; a slot that becomes free while others still arrive is reused.
    expect(started).toBeGreaterThanOrEqual(CORES + QUEUE)
    expect(started).toBeLessThan(200)
    expect([count(answers, 401), count(answers, 429)]).toEqual([started, 200 - started])
    expect(answers.find(({ status }) => status === 429)!.headers.get('retry-after')).toBe('1')
    // The queue accepts requests again, and signups and password changes share it.
    const mixed = await hasher.during(async () => {
      const change = { password: 'wrong', new_password: PASSWORD }
      await Promise.all([
        ...times(10, i => logIn(assay, { email: `flood-${i}@example.com` })),
        ...times(10, i =>
          assay.postJson('/api/auth/signup', { email: `h48-${i}@example.com`, password: PASSWORD }),
        ),
        ...times(5, () => assay.postJson('/api/auth/password', change, bearer(customer.accessToken))),
      ])
    })
    expect(mixed.most).toBeLessThanOrEqual(CORES)
    expect(mixed.started).toBe(25)
  })
})

test('H48 in one of many workers, the hasher runs one job at a time: the workers share the cores and the queue', async () => {
  const unlimited = { take: () => Promise.resolve() }
  const allMetrics = () => Promise.resolve('')
  const assay = await world.replica({}, { worker: { number: 1, of: QUEUE, limits: unlimited, allMetrics } })
  let answers: Answer[] = []
  const { most } = await hasher.during(async () => {
    answers = await Promise.all(times(20, i => logIn(assay, { email: `share-${i}@example.com` })))
  })
  expect(most).toBe(1)
  expect(count(answers, 401)).toBeGreaterThanOrEqual(2)
  expect(count(answers, 429)).toBeGreaterThan(0)
  expect(count(answers, 401) + count(answers, 429)).toBe(20)
})

test('H48 the concurrency limit runs its maximum, queues its maximum, and refuses the next', async () => {
  const gate = new ConcurrencyLimit(2, QUEUE)
  const inside: (() => void)[] = []
  const enter = () => gate.run('one', () => new Promise<void>(leave => inside.push(leave)))
  const passed = times(2 + QUEUE, enter)
  await expect(enter()).rejects.toThrow(RateLimitedError)
  for (let left = 0; left < passed.length; left++) {
    expect(inside).toHaveLength(Math.min(left + 2, passed.length))
    inside[left]!()
    await passed[left]
  }
  // A failed call frees its slot, too.
  await expect(gate.run('one', () => Promise.reject(new Error('failed')))).rejects.toThrow('failed')
  const again = times(2, enter)
  expect(inside).toHaveLength(passed.length + 2)
  for (const leave of inside) leave()
  await Promise.all(again)
})

test('the calls of one owner queue behind each other, and do not delay those of another', async () => {
  const limit = new ConcurrencyLimit(1, 4)
  const ended: string[] = []
  const call = (owner: string, name: string) => limit.run(owner, async () => void ended.push(name))
  const first = [call('one', 'a'), call('one', 'b'), call('one', 'c'), call('one', 'd'), call('other', 'e')]
  const refused = call('one', 'f')
  const last = call('other', 'g')
  await expect(refused).rejects.toThrow(RateLimitedError)
  await expect(first[3]).rejects.toThrow(RateLimitedError)
  await Promise.all([first[0], first[1], first[2], first[4], last])
  expect(ended).toEqual(['a', 'b', 'e', 'c', 'g'])
})
