import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { DatabaseError } from '../db/errors.ts'
import { Batcher, type BatcherOptions, byNumber } from '../server/lib/batcher.ts'
import { Unavailable } from '../server/lib/errors.ts'

/** An act is identified by its customer, followed by anything else. */
const owner = (item: string) => item.split('-')[0]!
const POSTGRES: BatcherOptions<string> = { database: { kind: 'postgres' }, owner }
const EMBEDDED: BatcherOptions<string> = { database: { kind: 'embedded' }, concurrency: 2, owner }

/** The test ends running statements, in the order in which they began. */
function held(options = POSTGRES) {
  const begun: string[][] = []
  const ends: ((outcome: Error | undefined) => void)[] = []
  const grouped = new Batcher<string, string>(items => {
    begun.push(items)
    return new Promise((resolve, reject) =>
      ends.push(error => (error ? reject(error) : resolve(items.map(item => `did ${item}`)))),
    )
  }, options)
  async function end(error?: Error) {
    ends.shift()!(error)
    await turn()
  }
  return { begun, end, add: (item: string) => grouped.add(item) }
}

const refusal = new DatabaseError('22P05', undefined, undefined)

describe('concurrent acts', () => {
  test('the first does not wait; those that arrive during its statement share the next one', async () => {
    const { begun, end, add } = held()
    const done = Promise.all(['a', 'b', 'c'].map(add))
    expect(begun).toEqual([['a']])
    await end()
    expect(begun).toEqual([['a'], ['b', 'c']])
    await end()
    expect(await done).toEqual(['did a', 'did b', 'did c'])
  })

  test('several statements may run at the same time, up to a limit', async () => {
    const { begun, end, add } = held({ ...POSTGRES, concurrency: 2 })
    const done = Promise.all(['a', 'b', 'c', 'd'].map(add))
    expect(begun).toEqual([['a'], ['b']])
    await end()
    expect(begun).toEqual([['a'], ['b'], ['c', 'd']])
    await end()
    await end()
    expect(await done).toEqual(['did a', 'did b', 'did c', 'did d'])
  })

  test('at most a hundred share one statement', async () => {
    const { begun, end, add } = held()
    const done = Promise.all(Array.from({ length: 202 }, (_, i) => add(String(i))))
    for (let statements = 0; statements < 4; statements++) await end()
    expect(begun.map(items => items.length)).toEqual([1, 100, 100, 1])
    await done
  })

  test('at most ten thousand wait: the next is refused at once', async () => {
    const { add } = held()
    for (let i = 0; i <= 10_000; i++) void add('one-waits')
    await expect(add('one-too many')).rejects.toThrow(Unavailable)
  })

  test('a statement takes one act of each customer in turn, the oldest first', async () => {
    const { begun, end, add } = held()
    const done = Promise.all(['x', 'a-1', 'a-2', 'a-3', 'b-1', 'c-1', 'c-2'].map(add))
    await end()
    await end()
    expect(begun[1]).toEqual(['a-1', 'b-1', 'c-1', 'a-2', 'c-2', 'a-3'])
    await done
  })

  test('the acts of a customer with thousands wait behind those of one with few', async () => {
    const { begun, end, add } = held()
    for (let i = 0; i < 5_000; i++) void add(`many-${i}`)
    void add('few-1')
    void add('few-2')
    await end()
    expect(begun[1]).toHaveLength(100)
    expect(begun[1]).toEqual(expect.arrayContaining(['few-1', 'few-2']))
  })

  test('if the queue is full of customers with one act each, the next act is refused at once', async () => {
    const { begun, end, add } = held()
    const done = Promise.all(Array.from({ length: 10_001 }, (_, i) => add(`${i}-waits`)))
    await expect(add('next')).rejects.toThrow(Unavailable)
    for (let statements = 0; statements < 101; statements++) await end()
    expect(begun.flat()).toHaveLength(10_001)
    await done
  })

  test('if the queue is full, an act of a customer with few replaces the newest act of one with most', async () => {
    const { begun, end, add } = held()
    void add('many-first')
    const many = Array.from({ length: 10_000 }, (_, i) => add(`many-${i}`))
    void add('few')
    await expect(many.at(-1)).rejects.toThrow(Unavailable)
    await end()
    expect(begun[1]).toEqual(expect.arrayContaining(['few', 'many-0', 'many-98']))
  })
})

describe('on the embedded database', () => {
  test('acts of one turn of the event loop share a statement, including the first', async () => {
    const { begun, end, add } = held(EMBEDDED)
    const done = Promise.all(['a', 'b', 'c'].map(add))
    expect(begun).toEqual([])
    await turn()
    expect(begun).toEqual([['a', 'b', 'c']])
    await end()
    expect(await done).toEqual(['did a', 'did b', 'did c'])
  })

  test('one statement runs at a time, and the next also takes the acts of one more turn', async () => {
    const { begun, end, add } = held(EMBEDDED)
    const first = add('a')
    await turn()
    const waited = add('b')
    await turn()
    expect(begun).toEqual([['a']])
    const answered = first.then(() => add('c'))
    await end()
    await turn()
    expect(begun).toEqual([['a'], ['b', 'c']])
    await end()
    expect(await Promise.all([waited, answered])).toEqual(['did b', 'did c'])
  })
})

describe('a statement that fails', () => {
  test.for([
    { options: POSTGRES, shared: [['first'], ['good', 'bad', 'better'], ['good'], ['bad'], ['better']] },
    {
      options: EMBEDDED,
      shared: [['first', 'good', 'bad', 'better'], ['first'], ['good'], ['bad'], ['better']],
    },
  ])(
    'if one act is refused, the others still succeed ($options.database.kind)',
    async ({ options, shared }) => {
      const ran: string[][] = []
      const grouped = new Batcher<string, string>(async items => {
        ran.push(items)
        if (items.includes('bad')) throw refusal
        return items
      }, options)
      const outcomes = await Promise.allSettled(
        ['first', 'good', 'bad', 'better'].map(item => grouped.add(item)),
      )
      expect(outcomes.map(({ status }) => status)).toEqual([
        'fulfilled',
        'fulfilled',
        'rejected',
        'fulfilled',
      ])
      expect(ran).toEqual(shared)
      expect(await grouped.add('later')).toBe('later')
    },
  )

  test('if the database stops answering while acts are repeated alone, the rest fail at once', async () => {
    const { begun, end, add } = held()
    const outcomes = Promise.allSettled(['a', 'b', 'c', 'd'].map(add))
    await end()
    await end(refusal)
    await end(new Unavailable('no answer', 'database'))
    expect((await outcomes).map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'rejected',
      'rejected',
    ])
    expect(begun).toEqual([['a'], ['b', 'c', 'd'], ['b']])
  })

  test('if the database does not answer, nothing is repeated, and waiting acts fail at once', async () => {
    const { begun, end, add } = held()
    const outcomes = Promise.allSettled(['a', 'b', 'c'].map(add))
    await end(new Unavailable('gone', 'database'))
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    expect(begun).toEqual([['a']])
    const later = add('later')
    await end()
    expect(await later).toBe('did later')
  })
})

test('rows are matched to acts by their number; an act without a row has none', () => {
  expect(byNumber([{ n: 2 }, { n: 0 }], 4)).toEqual([{ n: 0 }, undefined, { n: 2 }, undefined])
})
