import { expect, test } from 'vitest'
import { check, problemsOf, SLACK } from '../faults/checker.ts'
import type { Decision, History, Revocation } from '../faults/history.ts'

/** The checker of the fault harness, on histories with planted errors: a checker that can't fail proves nothing. */

const N = 1_000

const decision = (token: string, sentAt: number, status: number): Decision => ({
  replica: 1,
  token,
  sentAt,
  recordAnswer: sentAt + 5,
  status,
  age: undefined,
})

const revocation = (token: string, askedAt: number, acknowledgedAt?: number): Revocation => ({
  token,
  askedAt,
  acknowledgedAt,
  status: acknowledgedAt === undefined ? undefined : 200,
})

/** `a` is revoked at 100 and acknowledged at 110; `live` is never revoked. */
const sound: History = {
  decisions: [
    decision('a', 90, 200),
    decision('a', 110 + N + SLACK, 200),
    decision('a', 110 + N + SLACK + 1, 401),
    decision('a', 110 + N + SLACK + 1, 503),
    decision('live', 5_000, 200),
  ],
  revocations: [revocation('a', 100, 110)],
}

const plant = (...decisions: Decision[]): History => ({
  ...sound,
  decisions: [...sound.decisions, ...decisions],
})

test('a sound history passes, and the longest staleness is measured', () => {
  const verdict = check(sound, N)
  expect(problemsOf(verdict, true)).toEqual([])
  expect(verdict.worstStaleness).toBe(N + SLACK)
  expect(verdict.tried).toBe(2)
})

test('accepting a revoked token in a request a millisecond after the bound is found', () => {
  const verdict = check(plant(decision('a', 110 + N + SLACK + 1, 200)), N)
  expect(verdict.wrongYes).toHaveLength(1)
  expect(problemsOf(verdict, true)).toEqual([expect.stringContaining('wrong yes')])
})

test('a 401 for a live token is found, and so is one before its revocation was requested', () => {
  const verdict = check(plant(decision('live', 6_000, 401), decision('a', 90, 401)), N)
  expect(verdict.false401.map(({ token }) => token)).toEqual(['live', 'a'])
  expect(problemsOf(verdict, true)).toHaveLength(2)
})

test('a revocation without an acknowledgement allows both answers', () => {
  const history = plant(decision('b', 9_000, 200), decision('b', 9_000, 401))
  history.revocations = [...history.revocations, revocation('b', 200)]
  expect(problemsOf(check(history, N), true)).toEqual([])
})

test('of two attempts to revoke the first acknowledgement counts', () => {
  const history = plant(decision('a', 3_000, 200))
  history.revocations = [revocation('a', 50), ...history.revocations, revocation('a', 2_900, 2_950)]
  expect(check(history, N).wrongYes).toHaveLength(1)
})

test('a fault without effect, and a history that could not fail, are not a success', () => {
  expect(problemsOf(check(sound, N), false)).toEqual(['the fault had no effect'])
  const empty = check({ decisions: [], revocations: [] }, N)
  expect(problemsOf(empty, true)).toEqual([expect.stringContaining('nothing is proven')])
})

test('an answer other than accepted, refused and 503 is found, also for a revocation', () => {
  const history = plant(decision('live', 6_000, 500), decision('live', 6_000, 0))
  history.revocations = [...history.revocations, { ...revocation('b', 200), status: 500 }]
  const verdict = check(history, N)
  expect(verdict.odd).toHaveLength(3)
  expect(problemsOf(verdict, true)).toHaveLength(3)
})
