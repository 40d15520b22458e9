import { expect, test } from 'vitest'
import { addMissing, type CustomerRecord, isMissing } from '../server/keys/customer-keys.ts'

test('the newest missing id of a customer is always remembered, and the oldest of a thousand is forgotten', () => {
  const record = {} as CustomerRecord
  for (let n = 0; n <= 1_000; n++) {
    addMissing(record, `id ${n}`)
    expect(isMissing(record, `id ${n}`)).toBe(true)
  }
  expect([isMissing(record, 'id 0'), isMissing(record, 'id 1')]).toEqual([false, true])
})
