import { createHash } from 'node:crypto'

/** Choices that are a function of where they are made, and of the run's seed. */
export interface Random {
  below(count: number): number
  chance(share: number): boolean
  /** Undefined of an empty list. */
  pick<Item>(items: readonly Item[]): Item | undefined
  /** By the items' weights. */
  weighed<Item>(items: readonly (readonly [weight: number, item: Item])[]): Item
}

/** xorshift32 (Marsaglia 2003), begun by a hash of the parts: neighbouring steps have nothing in common. */
export function seeded(...parts: (string | number)[]): Random {
  let state = createHash('sha256').update(parts.join(' ')).digest().readUInt32LE() || 1
  const next = () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
  const below = (count: number) => Math.floor(next() * count)
  return {
    below,
    chance: share => next() < share,
    pick: items => items[below(items.length)],
    weighed: items => {
      let left = next() * items.reduce((sum, [weight]) => sum + weight, 0)
      for (const [weight, item] of items) {
        left -= weight
        if (left < 0) return item
      }
      return items[0]![1] // What rounding left over.
    },
  }
}
