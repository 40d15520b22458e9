import { Worker } from 'node:worker_threads'
import { parseOptions } from '@node-rs/argon2'
import { expect, test, vi } from 'vitest'
import { hashPassword, verifyPassword } from '../../server/crypto/password.ts'
import { watchHashes } from '../support/hasher.ts'

test('a password matches its own hash and no other', async () => {
  const hash = await hashPassword('correct horse')
  expect(await verifyPassword(hash, 'correct horse')).toBe(true)
  for (const other of ['', 'correct horse ', 'Correct horse', 'correct\u0000horse'])
    expect(await verifyPassword(hash, other)).toBe(false)
})

test.each([
  ['composed or not', 'pass\u00e9word', 'passe\u0301word'],
  ['in Hangul, composed or not', '\ud55c\uae00', '\u1112\u1161\u11ab\u1100\u1173\u11af'],
  ['in full width or not', '\uff50\uff41\uff53\uff53', 'pass'],
  ['with a space that does not break', 'pass\u00a0word', 'pass word'],
])('a password is the same %s', async (_, one, other) => {
  expect(await verifyPassword(await hashPassword(one), other)).toBe(true)
  expect(await verifyPassword(await hashPassword(other), one)).toBe(true)
})

test('letters that only look alike, and upper and lower case, stay different', async () => {
  const hash = await hashPassword('password')
  for (const other of ['p\u0430ssword', 'Password', 'pass\u200bword'])
    expect(await verifyPassword(hash, other)).toBe(false)
})

test('a password is hashed with argon2id, 19 MiB, two passes and a fresh salt', async () => {
  const hashes = [await hashPassword('correct horse'), await hashPassword('correct horse')]
  for (const hash of hashes) expect(hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
  expect(hashes[0]).not.toBe(hashes[1])
})

test('H47 an unknown account costs the same verification as a known one, and is always refused', async () => {
  const real = parseOptions(await hashPassword('x'))
  const jobs: object[] = []
  const hashes = watchHashes((_, { job }) => jobs.push('hash' in job ? parseOptions(job.hash) : job))
  for (const password of ['', 'x', 'correct horse'])
    expect(await verifyPassword(undefined, password)).toBe(false)
  hashes.stop()
  expect(jobs).toEqual([real, real, real])
})

test('H47 an unknown account is refused even with a password of the stand-in hash', async () => {
  const post = vi.spyOn(Worker.prototype, 'postMessage').mockImplementation(function (this: Worker, { id }) {
    this.emit('message', { id, answer: { result: true } })
  })
  expect(await verifyPassword(undefined, 'x')).toBe(false)
  post.mockRestore()
})
