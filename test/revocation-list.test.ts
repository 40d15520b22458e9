import { expect, inject, test } from 'vitest'
import { ExpiringTable } from '../server/revocation/expiring-table.ts'
import { Fingerprint } from '../server/revocation/fingerprint.ts'
import { RevocationList } from '../server/revocation/revocation-list.ts'
import { memoryInUse } from './support/memory.ts'

/** The revocations in a replica's memory. */

const CUSTOMER = 'abcdefghijklmnop'
const claims = { client_id: CUSTOMER, jti: 'j'.repeat(24), sub: 'user-1', ep: '0.5' } as never

test('a million names have different fingerprints, whatever strings they consist of', () => {
  const fingerprint = new Fingerprint()
  const seen = new Set<bigint>()
  const add = (first: string, second: string) => {
    const { high, low } = fingerprint.hash(first, second)
    seen.add((BigInt(high) << 32n) | BigInt(low))
  }
  for (let i = 0; i < 200_000; i++) add(CUSTOMER, `user-${i}`)
  for (let length = 0; length < 256; length++) add(CUSTOMER, 'a'.repeat(length))
  const moved = [
    ['', 'abc'],
    ['a', 'bc'],
    ['ab', 'c'],
    ['abc', ''],
    ['abc', '\0'],
    ['a\0', 'bc'],
    ['ab', 'c\0'],
    ['ł', ''],
  ] as const
  for (const [first, second] of moved) add(first, second)
  expect(seen.size).toBe(200_000 + 256 + moved.length)
})

test('each process has its own fingerprints, and the same entry always has the same one', () => {
  const [one, two] = [new Fingerprint(), new Fingerprint()]
  const name = ({ high, low }: Fingerprint) => `${high} ${low}`
  expect(name(one.hash(CUSTOMER, 'user-1'))).toBe(name(one.hash(CUSTOMER, 'user-1')))
  expect(name(one.hash(CUSTOMER, 'user-1'))).not.toBe(name(two.hash(CUSTOMER, 'user-1')))
})

test('the table behaves like a map, however it grows and is swept', () => {
  const table = new ExpiringTable()
  const model = new Map<number, { epoch: number; deadAfter: number }>()
  let state = inject('seed')
  const random = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
  // Few partitions and few slots, so that many entries collide.
  const nameOf = (n: number) => ({ high: ((n % 3) << 24) >>> 0, low: (n * 64) >>> 0 })
  for (let step = 0; step < 60_000; step++) {
    const n = random(3_000)
    const [epoch, deadAfter] = [1 + random(2 ** 40), 1_000 + step + random(20_000)]
    table.raise(nameOf(n), epoch, deadAfter)
    const known = model.get(n)
    model.set(n, {
      epoch: Math.max(epoch, known?.epoch ?? 0),
      deadAfter: Math.max(deadAfter, known?.deadAfter ?? 0),
    })
    if (step % 5_000 !== 4_999) continue
    const now = 1_000 + step + random(15_000)
    table.sweep(now, 0, Number.POSITIVE_INFINITY)
    for (const [key, entry] of model) if (entry.deadAfter < now) model.delete(key)
    expect(table.size).toBe(model.size)
    for (let key = 0; key < 3_000; key++) expect(table.epoch(nameOf(key))).toBe(model.get(key)?.epoch ?? 0)
  }
})

test('a sweep continues in slices, and drops no live entry', async () => {
  const list = new RevocationList()
  for (let i = 0; i < 200_000; i++) list.add([i, 'token', CUSTOMER, `token-${i}`, 0, i % 2 === 0 ? 100 : 300])
  list.add([200_000, 'subject', CUSTOMER, 'user-1', 6, 300])
  list.sweep(200)
  await expect.poll(() => list.size).toBe(100_001)
  expect(list.refuse({ ...(claims as object), jti: 'token-1' } as never)).toBe('token_revoked')
  expect(list.refuse({ ...(claims as object), jti: 'token-2' } as never)).toBe('subject_revoked')
  list.sweep(301)
  await expect.poll(() => list.size).toBe(0)
  expect(list.refuse(claims)).toBeUndefined()
})

test.each(['token', 'session', 'subject', 'customer', 'everyone'] as const)(
  'of two lifetimes of one change of a %s the later one counts, in either order',
  kind => {
    for (const ends of [
      [100, 300],
      [300, 100],
    ]) {
      const list = new RevocationList()
      for (const end of ends) list.add([7, kind, kind === 'everyone' ? '' : CUSTOMER, 'x', 9, end])
      list.sweep(200)
      expect(list.size).toBe(1)
      list.sweep(301)
      expect(list.size).toBe(0)
    }
  },
)

test('a date that does not fit into 32 bits counts as never', () => {
  const list = new RevocationList()
  list.add([1, 'subject', CUSTOMER, 'user-1', 6, 2 ** 33])
  list.sweep(2 ** 32 - 2)
  expect(list.refuse(claims)).toBe('subject_revoked')
})

test('a million revocations take at most 60 bytes each outside the heap, and none in it', () => {
  const before = memoryInUse()
  const list = new RevocationList()
  for (let i = 0; i < 1_000_000; i++) list.add([i, 'subject', CUSTOMER, `user-${i}`, i, 2_000_000_000])
  const after = memoryInUse()
  expect(list.size).toBe(1_000_000)
  expect((after.arrayBuffers - before.arrayBuffers) / 1_000_000).toBeLessThan(60)
  expect((after.heapUsed - before.heapUsed) / 1_000_000).toBeLessThan(1)
})
