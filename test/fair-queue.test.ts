import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FairQueue } from '../server/lib/fair-queue.ts'

/** A minimal model of the queue: entries in lists, and the owners in the order of their turns. */
class Model {
  owners: { owner: string; entries: number[] }[] = []

  push(owner: string, entry: number) {
    const own = this.owners.find(each => each.owner === owner)
    if (own) own.entries.push(entry)
    else this.owners.push({ owner, entries: [entry] })
  }

  take(count: number) {
    const taken: number[] = []
    while (taken.length < count && this.owners.length > 0) {
      const next = this.owners.shift()!
      taken.push(next.entries.shift()!)
      if (next.entries.length > 0) this.owners.push(next)
    }
    return taken
  }

  lengthOf(owner: string) {
    return this.owners.find(each => each.owner === owner)?.entries.length ?? 0
  }

  get longest() {
    return Math.max(0, ...this.owners.map(({ entries }) => entries.length))
  }
}

const owner = fc.constantFrom('a', 'b', 'c', 'd')
const step = fc.oneof(
  { weight: 4, arbitrary: owner.map(name => ['push', name] as const) },
  fc.nat(3).map(count => ['take', count] as const),
  owner.map(name => ['longest', name] as const),
)

test('with any pushes and takes, each owner gets its turn, and the longest queue gives way', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      const [queue, model] = [new FairQueue<number>(), new Model()]
      for (const [i, [what, argument]] of steps.entries()) {
        if (what === 'push') {
          queue.push(argument, i)
          model.push(argument, i)
        } else if (what === 'take') expect(queue.take(argument)).toEqual(model.take(argument))
        else {
          const gives = model.longest > model.lengthOf(argument) + 1
          const taken = queue.takeFromLongest(argument)
          expect(taken !== undefined).toBe(gives)
          const from = model.owners.find(({ entries }) => entries.at(-1) === taken)
          if (gives) expect(from?.entries.length).toBe(model.longest)
          from?.entries.pop()
        }
        expect(queue.size).toBe(model.owners.reduce((sum, { entries }) => sum + entries.length, 0))
      }
      expect(queue.take(1_000)).toEqual(model.take(1_000))
    }),
  )
})
