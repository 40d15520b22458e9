import { describe, expect, test } from 'vitest'
import { SLACK } from '../faults/checker.ts'
import type { Act, Call, Grant } from '../faults/histories/call.ts'
import { judge } from '../faults/histories/judge.ts'
import { eventKey, type Facts } from '../faults/histories/kept.ts'
import { report } from '../faults/histories/report.ts'

/** The checker of random histories, on histories with planted errors: a checker that can't fail proves nothing. */

const N = 1_000
const SECOND = 1_000
const LATE = N + SLACK + 1

/** Sent at `at` and answered 10 ms later, by the first replica unless stated otherwise. */
const call = (at: number, act: Act, status: number, more: Partial<Call> = {}): Call => ({
  ...{ client: 'user1', replica: 0, act, status, sentAt: at, recordAnswer: at + 10 },
  ...more,
})

const elsewhere = { replica: 1 }

const grant = (token: string, more: Partial<Grant> = {}): Grant => ({
  ...{ token, customer: 'c1', subject: 'u', version: 1, lifetime: 300 * SECOND },
  ...more,
})

const inSession = (gen: number, text = `s1.${gen}`) => ({ session: { name: 's1', gen, text } })

/** At 0: session s1 with its access token a1. */
const begun = (more: Partial<Grant> = {}) =>
  call(0, { does: 'issue', customer: 'c1', subject: 'u', since: 0 }, 200, {
    granted: grant('a1', { ...inSession(1), ...more }),
  })

/** At 0: the access token a1 without a session. */
const issued = (more: Partial<Grant> = {}) =>
  call(0, { does: 'issue', customer: 'c1', subject: 'u', since: 0 }, 200, { granted: grant('a1', more) })

const verified = (at: number, status: number, more: Partial<Call> = {}, token = 'a1', strict = false) =>
  call(at, { does: 'verify', token, strict }, status, { ...elsewhere, ...more })

/** Presents generation `gen`, and gets the next. */
const refreshed = (at: number, gen: number, granted = gen + 1, text?: string) =>
  call(at, { does: 'refresh', session: 's1', gen }, 200, {
    granted: grant(`a${granted}`, inSession(granted, text)),
  })

const refused = (at: number, gen: number, error = 'invalid_grant') =>
  call(at, { does: 'refresh', session: 's1', gen }, 400, { error })

const unanswered = (call: Call): Call => {
  const { granted: _, ...rest } = call
  return { ...rest, status: 503 }
}

/** Every act that ends a1, requested at 100 and acknowledged at 110. */
const ENDS: Record<string, Call> = {
  token: call(100, { does: 'revoke token', token: 'a1', wait: false }, 200),
  'session by its id': call(100, { does: 'revoke session', session: 's1', by: 'id', wait: false }, 204),
  'session by its refresh token': call(
    100,
    { does: 'revoke session', session: 's1', by: 'refresh token', wait: false },
    200,
  ),
  'session by its access token': call(
    100,
    { does: 'revoke session', session: 's1', by: 'access token', token: 'a1', wait: false },
    200,
  ),
  subject: call(100, { does: 'revoke subject', customer: 'c1', subject: 'u', wait: false }, 204),
  customer: call(100, { does: 'revoke customer', customer: 'c1', token: 'own', wait: false }, 204),
}

const rotatedNow = (uses: 'access' | 'refresh' | 'both', version = 2) =>
  call(100, { does: 'rotate', customer: 'c1', uses, now: true, token: 'own' }, 200, {
    versions: {
      ...(uses !== 'refresh' && { access: version }),
      ...(uses !== 'access' && { refresh: version }),
    },
  })

/** The token that a customer acts with, for another subject. */
const own = call(0, { does: 'log in', customer: 'c1' }, 200, {
  granted: grant('own', { subject: 'c1' }),
})

const found = (...calls: Call[]) => judge([own, ...calls], N).violations.map(({ what }) => what)

const withWait = (end: Call): Call => ({ ...end, act: { ...end.act, wait: true } as Act })

describe('never accepts a revoked token', () => {
  for (const [name, end] of Object.entries(ENDS)) {
    test(`accepting a token too late after the revocation of its ${name} is found`, () => {
      expect(found(begun(), end, verified(110 + LATE, 200))).toEqual(['a forbidden token was accepted'])
      expect(found(begun(), end, verified(110 + LATE - 1, 200), verified(110 + LATE, 401))).toEqual([])
    })

    test(`after wait=all for its ${name}, and in a strict request, any later acceptance is found`, () => {
      expect(found(begun(), withWait(end), verified(111, 200))).toHaveLength(1)
      expect(found(begun(), end, verified(111, 200, {}, 'a1', true))).toHaveLength(1)
      expect(found(begun(), withWait(end), verified(109, 200), verified(111, 401))).toEqual([])
    })
  }

  test('an introspection that calls a revoked token active is found', () => {
    const introspected = (active: boolean) =>
      call(110 + LATE, { does: 'introspect', token: 'a1', strict: false }, 200, { ...elsewhere, active })
    expect(found(begun(), ENDS.token!, introspected(true))).toHaveLength(1)
    expect(found(begun(), ENDS.token!, introspected(false))).toEqual([])
  })

  test('the replica that acted knows it when it answers', () => {
    expect(found(issued(), ENDS.token!, verified(111, 200, { replica: 0 }))).toHaveLength(1)
    expect(found(issued(), ENDS.token!, verified(111, 200))).toEqual([])
  })

  test('a replica that finds a session ended by another need not know it yet', () => {
    const [byId, byToken] = [ENDS['session by its id']!, ENDS['session by its refresh token']!]
    const here = verified(111, 200, { replica: 0 })
    expect(found(begun(), byId, here)).toHaveLength(1)
    expect(found(begun(), { ...byId, status: 404 }, here)).toEqual([])
    expect(found(begun(), byToken, here)).toEqual([])
  })

  test('a replica that reports the age of its state is held to it', () => {
    expect(found(begun(), ENDS.token!, verified(211, 200, { age: 100 }))).toHaveLength(1)
    expect(found(begun(), ENDS.token!, verified(211, 200, { age: 101 }))).toEqual([])
    expect(found(begun(), ENDS.token!, verified(110 + LATE, 200, { age: 9_000 }))).toHaveLength(1)
  })

  test('an expired token has nothing to revoke, so another clock may still accept it', () => {
    const revoked = { ...withWait(ENDS.token!), sentAt: 2_000, recordAnswer: 2_010 }
    expect(found(issued({ lifetime: 3 * SECOND }), revoked, verified(2_020, 200))).toEqual([])
    expect(found(issued({ lifetime: 4 * SECOND }), revoked, verified(2_020, 200))).toHaveLength(1)
  })

  test('an emergency rotation applies everywhere once it is answered', () => {
    for (const uses of ['access', 'both', 'refresh'] as const)
      expect(found(issued(), rotatedNow(uses), verified(111, 200))).toHaveLength(1)
    expect(found(issued({ version: 2 }), rotatedNow('access'), verified(111, 200))).toEqual([])
  })

  test('an unacknowledged or refused act forbids nothing for certain', () => {
    for (const status of [503, 429]) {
      const calls = [issued(), { ...ENDS.subject!, status }, verified(9_000, 200)]
      expect(found(...calls)).toEqual([])
    }
  })

  test('tokens issued after or during the act may remain valid', () => {
    const later = { ...begun(), sentAt: 105, recordAnswer: 120 }
    expect(found(later, ENDS.subject!, verified(9_000, 200))).toEqual([])
  })

  test('a refused access token ends no session', () => {
    const calls = [
      begun(),
      ENDS.token!,
      { ...ENDS['session by its access token']!, sentAt: 200, recordAnswer: 210 },
    ]
    expect(found(...calls, refreshed(300, 1))).toEqual([])
  })

  test('accepting an expired token is found', () => {
    const short = issued({ lifetime: 3 * SECOND })
    expect(found(short, verified(3_010 + SLACK + 1, 200))).toEqual(['an expired token was accepted'])
    expect(found(short, verified(3_010 + SLACK, 200), verified(3_010 + SLACK + 1, 401))).toEqual([])
  })

  test('a refresh after the end of its session is found, whatever ended it', () => {
    const ends = [...Object.values(ENDS).slice(1), rotatedNow('refresh'), rotatedNow('both')]
    for (const end of ends) {
      expect(found(begun(), end, refreshed(111, 1))).toEqual(['a session that had ended was refreshed'])
      expect(found(begun(), end, refreshed(109, 1), refused(111, 1))).toEqual([])
    }
    expect(found(begun(), rotatedNow('access'), refreshed(111, 1))).toEqual([])
  })

  const line = [begun(), refreshed(100, 1), refreshed(200, 2), refreshed(300, 3)]

  test('after a detected reuse, a refresh and an access token of the session are wrong', () => {
    const stolen = [...line, refused(400, 1, 'reuse')]
    expect(found(...stolen, refreshed(411, 4))).toEqual(['a session that had ended was refreshed'])
    expect(found(...stolen, verified(410 + LATE, 200))).toEqual(['a forbidden token was accepted'])
    expect(found(...stolen, refused(411, 4), verified(410 + LATE, 401))).toEqual([])
  })

  test('an undetected reuse is found: by generations, and by the grace', () => {
    expect(found(...line, refreshed(400, 1, 4))).toEqual(['a reuse was not detected'])
    const two = [begun(), refreshed(100, 1), refreshed(200, 2)]
    expect(found(...two, refreshed(110 + 10 * SECOND + LATE, 1, 3))).toEqual(['a reuse was not detected'])
    expect(found(...two, refreshed(100 + 10 * SECOND, 1, 3))).toEqual([])
  })

  test('a fork is found: two successors of one refresh token', () => {
    const tabs = [refreshed(100, 1), { ...refreshed(100, 1, 2, 'another'), replica: 1 }]
    expect(found(begun(), ...tabs)).toEqual(['a session has forked'])
    expect(found(begun(), refreshed(100, 1), { ...refreshed(100, 1), replica: 1 })).toEqual([])
  })

  test('a generation that decreases is found', () => {
    expect(found(begun(), refreshed(100, 1, 1))).toEqual(['a generation went back'])
    expect(found(...line, refreshed(400, 3, 3))).toContain('a generation went back')
    expect(found(...line, refreshed(400, 2, 3))).toContain('a generation went back')
  })
})

describe('never a false logout', () => {
  test('an unrequested refusal is found, and so is one before the request', () => {
    expect(found(begun(), verified(50, 401))).toEqual(['a live token was refused'])
    expect(found(begun(), verified(50, 401), ENDS.token!)).toHaveLength(1)
    expect(found(begun(), verified(95, 401), ENDS.token!)).toEqual([])
  })

  test("another session's end is no reason, nor is an earlier one", () => {
    const others: Act[] = [
      { does: 'revoke token', token: 'own', wait: false },
      { does: 'revoke subject', customer: 'c1', subject: 'other', wait: false },
      { does: 'revoke customer', customer: 'c2', token: 'own', wait: false },
      { does: 'revoke subject', customer: 'c1', subject: 'u', wait: false },
    ]
    for (const act of others.slice(0, 3))
      expect(found(begun(), call(20, act, 204), verified(500, 401))).toContain('a live token was refused')
    expect(found(call(-100, others[3]!, 204), begun(), verified(500, 401))).toHaveLength(1)
  })

  test('an end that was requested and not acknowledged may have happened or not', () => {
    for (const end of Object.values(ENDS)) {
      expect(found(begun(), unanswered(end), verified(9_000, 401), verified(9_000, 200))).toEqual([])
      expect(found(call(-500, end.act, 503), begun(), verified(500, 401))).toEqual([])
    }
  })

  test('a theft that was answered 503 may have ended the session', () => {
    const line = [begun(), refreshed(100, 1), refreshed(200, 2), refreshed(300, 3)]
    expect(found(...line, unanswered(refreshed(400, 1)), refused(500, 4))).toEqual([])
    expect(found(...line, unanswered(refreshed(400, 4)), refused(500, 4))).toHaveLength(1)
  })

  test('a rotation ends nothing, and an emergency rotation ends sessions only if it includes refresh', () => {
    const act: Act = { does: 'rotate', customer: 'c1', uses: 'both', now: false, token: 'own' }
    const rotated = call(100, act, 200, { versions: { access: 2, refresh: 2 } })
    expect(found(begun(), rotated, verified(500, 401))).toEqual(['a live token was refused'])
    expect(found(begun(), rotated, refused(500, 1))).toEqual(['the refresh of a live session was refused'])
    expect(found(begun(), rotatedNow('access'), verified(500, 401))).toEqual([])
    expect(found(begun(), rotatedNow('access'), refused(500, 1))).toHaveLength(1)
    expect(found(begun(), rotatedNow('both'), refused(500, 1))).toEqual([])
  })

  test('a token that may have expired may be refused, but not earlier', () => {
    const short = issued({ lifetime: 5 * SECOND })
    expect(found(short, verified(3_400, 401))).toEqual(['a live token was refused'])
    expect(found(short, verified(3_500, 401))).toEqual([])
  })

  test('a lost answer, a second tab and a slow tab are not thieves', () => {
    const theft = ['an honest refresh was called a reuse']
    expect(found(begun(), unanswered(refreshed(100, 1)), refused(20_000, 1, 'reuse'))).toEqual(theft)
    expect(found(begun(), refreshed(100, 1), refused(20_000, 1, 'reuse'))).toEqual(theft)
    expect(
      found(begun(), refreshed(100, 1), verified(200, 200, {}, 'a2'), refused(9_000, 1, 'reuse')),
    ).toEqual(theft)
    expect(found(begun(), refreshed(100, 1), refreshed(200, 2), refused(9_000, 1, 'reuse'))).toEqual(theft)
  })

  test('a recently used successor does not make a slow tab a thief', () => {
    const used = [begun(), refreshed(100, 1), verified(5_000, 200, {}, 'a2')]
    expect(found(...used, refused(14_000, 1, 'reuse'))).toEqual(['an honest refresh was called a reuse'])
    expect(found(...used, refused(15_000, 1, 'reuse'))).toEqual([])
  })

  test('a token replaced long ago, with a used successor, may be a reuse', () => {
    const used = [begun(), refreshed(100, 1), verified(200, 200, {}, 'a2')]
    expect(found(...used, refused(200 + 10 * SECOND, 1, 'reuse'))).toEqual([])
    expect(found(begun(), refreshed(100, 1), refreshed(200, 2), refused(10_100, 1, 'reuse'))).toEqual([])
  })

  test('a retry of an issue may be refused only if the session has ended since', () => {
    const retry = call(50, { does: 'issue', customer: 'c1', subject: 'u', since: 0 }, 409)
    expect(found(retry)).toEqual(['a retry of an issue was refused'])
    expect(found({ ...retry, recordAnswer: 200 }, ENDS.subject!)).toEqual([])
  })
})

describe('an unknown state is 503', () => {
  test('an answer other than accepted, refused and 503 is found, and so is none', () => {
    for (const status of [0, 500, 502, 403, 400]) expect(found(begun(), verified(50, status))).toHaveLength(1)
    expect(found(begun(), { ...refused(50, 1), error: 'invalid_request' })).toHaveLength(1)
    for (const end of Object.values(ENDS).slice(0, -1))
      expect(found(begun(), call(50, end.act, 401))).toHaveLength(1)
    expect(found(begun(), call(50, ENDS['session by its refresh token']!.act, 404))).toHaveLength(1)
    expect(found(begun(), verified(50, 503), unanswered(refreshed(60, 1)))).toEqual([])
  })
})

describe('nothing acknowledged is lost', () => {
  const fact = { gen: 2, revoked: false, superseded: false, rotations: 1 }
  const given = (token: string) => eventKey('token given', `token ${token}`)
  const events: [string, number][] = [given('own'), given('a1'), given('a2')].map(key => [key, 1])
  const sound: Facts = { sessions: new Map([['s1', fact]]), events: new Map(events), secrets: [] }
  const history = [own, begun(), refreshed(50, 1)]
  const lost = (facts: Partial<Facts>, ...more: Call[]) =>
    judge([...history, ...more], N, { ...sound, ...facts }).violations.map(({ what }) => what)
  const session = (change: Partial<typeof fact>) => ({ sessions: new Map([['s1', { ...fact, ...change }]]) })

  test('a database that holds what was answered is sound', () => expect(lost({})).toEqual([]))

  test('a token that was issued without an audit row is found', () => {
    expect(lost({ events: new Map(events.slice(0, 2)) })).toEqual(['an act is not in the audit'])
  })

  test('an acknowledged act without its audit row is found', () => {
    const rotated = {
      ...rotatedNow('access'),
      act: { ...rotatedNow('access').act, now: false } as Act,
      versions: {},
    }
    const byId = ENDS['session by its id']!
    expect(lost({}, ENDS.token!)).toEqual(['an act is not in the audit'])
    for (const end of [ENDS.subject!, ENDS.customer!])
      expect(lost(session({ superseded: true }), end)).toEqual(['an act is not in the audit'])
    expect(lost(session({ revoked: true }), byId)).toEqual(['an act is not in the audit'])
    expect(lost({}, rotated)).toEqual(['an act is not in the audit'])
    expect(lost({}, unanswered(ENDS.subject!))).toEqual([])
  })

  test('a session that contradicts what was answered is found', () => {
    const ended = ENDS['session by its refresh token']!
    expect(lost({ sessions: new Map() })).toEqual(['a session is gone'])
    expect(lost({}, ended)).toEqual(['a session lives although its end was acknowledged'])
    expect(lost(session({ revoked: true }), ended)).toEqual([])
    expect(lost(session({ revoked: true }))).toEqual(['a session ended without a cause'])
    expect(lost(session({ superseded: true }))).toEqual(['a session ended without a cause'])
    expect(lost(session({ gen: 1, rotations: 0 }))).toEqual([
      'a session has a generation that was not requested, or lost one',
    ])
    expect(lost(session({ gen: 3, rotations: 2 }))).toEqual([
      'a session has a generation that was not requested, or lost one',
    ])
    expect(lost(session({ rotations: 2 }))).toEqual([
      'a session was refreshed more or less often than its audit says',
    ])
  })

  test('a refresh that the database lost is found by its adoption', () => {
    const adopted: [string, number] = [eventKey('session.adopted', 'session s1'), 1]
    expect(lost({ events: new Map([...events, adopted]) })).toEqual(['the database lost a refresh'])
  })

  test('a missing rotation, and an emergency rotation that left an old version, are found', () => {
    const audited = { events: new Map([...events, [eventKey('secret.rotated', 'customer c1'), 1] as const]) }
    const secret = (version: number, state: string) => ({ customer: 'c1', use: 'access', version, state })
    const now = rotatedNow('access')
    expect(lost({ ...audited, secrets: [secret(1, 'retired')] }, now)).toEqual(['a rotation was lost'])
    expect(lost({ ...audited, secrets: [secret(1, 'previous'), secret(2, 'current')] }, now)).toHaveLength(1)
    expect(lost({ ...audited, secrets: [secret(1, 'retired'), secret(2, 'current')] }, now)).toEqual([])
  })
})

test('the report has the staleness and the silence, and names the requests and answers of a violation', () => {
  const calls = [own, begun(), verified(50, 503), verified(70, 200), ENDS.token!, verified(110 + LATE, 200)]
  const judgement = judge(calls, N)
  expect(judgement).toMatchObject({ worstStaleness: LATE, tried: 1 })
  const text = report({
    ...judgement,
    calls,
    seed: 7,
    seconds: 1,
    clients: 1,
    faults: new Map([['TCP black hole', 2]]),
  })
  expect(text).toContain('seed 7')
  expect(text).toContain('TCP black hole 2')
  expect(text).toContain('replica 1 30 ms')
  expect(text).toMatch(
    /a forbidden token was accepted: a1 \n.*issue.*\n.*\n.*\n> .*revoke token.*\n> .*user1@1 verify/,
  )
})
