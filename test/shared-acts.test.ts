import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { SharedActs } from '../server/lib/shared-acts.ts'

/** The test ends acts, in the order in which they began. */
function held() {
  const ends: ((error?: Error) => void)[] = []
  const acts = new SharedActs<number>()
  const act = () => {
    const number = ends.length
    return new Promise<number>((resolve, reject) =>
      ends.push(error => (error ? reject(error) : resolve(number))),
    )
  }
  async function end(number: number, error?: Error) {
    ends[number]!(error)
    await turn()
  }
  return { run: (key: string) => acts.run(key, act), end, begun: () => ends.length }
}

test('calls during an act share the next one, which begins after them', async () => {
  const { run, end, begun } = held()
  const done = Promise.all([run('a'), run('a'), run('a')])
  expect(begun()).toBe(1)
  await end(0)
  expect(begun()).toBe(2)
  const later = run('a')
  expect(begun()).toBe(2)
  await end(1)
  await end(2)
  expect(await done).toEqual([0, 1, 1])
  expect(await later).toBe(2)
  expect(begun()).toBe(3)
})

test('an act that fails does not fail the next one, and other keys do not wait', async () => {
  const { run, end, begun } = held()
  const failed = expect(run('a')).rejects.toThrow('lost')
  const next = run('a')
  const other = run('b')
  expect(begun()).toBe(2)
  await end(0, new Error('lost'))
  await failed
  await end(1)
  await end(2)
  expect([await other, await next]).toEqual([1, 2])
})
