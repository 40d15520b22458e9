import { createHash } from 'node:crypto'

/** Random choices that depend only on the seed and on where they are made. */
export interface Random {
  below(count: number): number
  chance(share: number): boolean
  /** Returns undefined for an empty list. */
  pick<Item>(items: readonly Item[]): Item | undefined
  /** Picks in proportion to the weights. */
  weighed<Item>(items: readonly (readonly [weight: number, item: Item])[]): Item
}

/** xorshift32 (Marsaglia 2003), seeded by a hash of the parts, so that consecutive steps are unrelated. */
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
      return items[0]![1] // Reached only through rounding.
    },
  }
}
