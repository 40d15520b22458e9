import { expect, test } from 'vitest'
import { DatabaseError } from '../db/errors.ts'
import { Unavailable } from '../server/lib/errors.ts'
import { createLog } from '../server/lib/logger.ts'
import { WriteBuffer } from '../server/lib/write-buffer.ts'
import { heapInUse } from './support/memory.ts'
import { trials } from './support/trials.ts'

function batch(failure?: () => Error | undefined) {
  const written: number[][] = []
  const write = async (items: number[]) => {
    const error = failure?.()
    if (error) throw error
    written.push(items)
  }
  return { written, notes: new WriteBuffer({ write, quiet: 0, log: createLog('silent') }) }
}

test('a full batch is written at once, and entries are written only once', async () => {
  const { written, notes } = batch()
  for (let n = 0; n < 3_000; n++) notes.enqueue(`note ${n}`, n)
  await notes.flush()
  expect(written.map(items => items.length)).toEqual([1_000, 1_000, 1_000])
  expect(written.flat()).toEqual(Array.from({ length: 3_000 }, (_, n) => n))
  notes.enqueue('note 0', 0)
  await notes.flush()
  expect(written).toHaveLength(3)
})

test('entries wait up to a limit while the database does not answer, and are written once it does', async () => {
  let failure: Error | undefined = new Unavailable('gone', 'database')
  const { written, notes } = batch(() => failure)
  for (let n = 0; n < 12_000; n++) notes.enqueue(`note ${n}`, n)
  expect(notes.dropped).toBe(2_000)
  await notes.flush()
  expect(notes.isWaiting('note 0')).toBe(true)
  failure = undefined
  await notes.flush()
  expect(written.flat()).toHaveLength(10_000)
  expect(notes.isWaiting('note 0')).toBe(false)
  notes.enqueue('note 11999', 11_999)
  await notes.stop()
  expect(written.at(-1)).toEqual([11_999])
})

test('an entry that the database rejects is dropped alone, and is tried again when it is added again', async () => {
  const written: number[] = []
  let poison = 3
  const write = async (items: number[]) => {
    if (items.includes(poison)) throw new DatabaseError('22003', undefined, undefined)
    written.push(...items)
  }
  const notes = new WriteBuffer({ write, quiet: 0, log: createLog('silent') })
  for (let n = 0; n < 6; n++) notes.enqueue(`note ${n}`, n)
  await notes.flush()
  expect(written).toEqual([0, 1, 2, 4, 5])
  expect(notes.dropped).toBe(1)
  poison = -1
  notes.enqueue('note 3', 3)
  await notes.flush()
  expect(written.at(-1)).toBe(3)
})

test('H25 entries are remembered up to a limit', async () => {
  const { written, notes } = batch()
  const noteAll = async (from: number, many: number) => {
    for (let n = from; n < from + many; n++) {
      notes.enqueue(`a customer and a session of some length ${n}`, n)
      if (n % 1_000 === 999) await notes.flush()
    }
    written.length = 0
  }
  const remembered = 100_000
  await noteAll(0, remembered)
  const held = heapInUse()
  await noteAll(remembered, trials(1_000_000, remembered))
  expect(notes.dropped).toBe(0)
  expect(heapInUse() - held).toBeLessThan(5e6)
})
