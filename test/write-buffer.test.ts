import { expect, test } from 'vitest'
import { createLog } from '../server/lib/logger.ts'
import { WriteBuffer } from '../server/lib/write-buffer.ts'
import { heapInUse } from './support/memory.ts'
import { trials } from './support/trials.ts'

function batch() {
  const written: number[][] = []
  const write = async (items: number[]) => void written.push(items)
  return { written, notes: new WriteBuffer({ write, quiet: 0, log: createLog('silent') }) }
}

test('notes wait up to a cap, are written together, and what comes on top is dropped', async () => {
  const { written, notes } = batch()
  for (let n = 0; n < 3_000; n++) notes.enqueue(`note ${n}`, n)
  expect(notes.dropped).toBe(2_000)
  await notes.flush()
  expect(written.map(items => items.length)).toEqual([1_000])
  notes.enqueue('note 0', 0)
  notes.enqueue('note 2999', 2_999)
  await notes.flush()
  expect(written.at(-1)).toEqual([2_999])
})

test('H25 what was noted is remembered up to a cap', async () => {
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
