import { OwnerCounts } from './owner-counts.ts'

/** A queue in which the entries of one owner wait behind each other, and do not delay those of other owners. */
export class FairQueue<Entry> {
  /** By owner, in the order of their turns. */
  readonly #queues = new Map<string, Entry[]>()
  readonly #counts = new OwnerCounts()
  #size = 0

  get size(): number {
    return this.#size
  }

  countOf(owner: string): number {
    return this.#counts.of(owner)
  }

  push(owner: string, entry: Entry) {
    const own = this.#queues.get(owner)
    if (own) own.push(entry)
    else this.#queues.set(owner, [entry])
    this.#counts.add(owner)
    this.#size++
  }

  /** Takes at most `count` entries, one of each owner in turn, and of each owner the oldest first. */
  take(count: number): Entry[] {
    const taken: Entry[] = []
    // An owner that is set again is visited again, after all others.
    for (const [owner, own] of this.#queues) {
      if (taken.length === count) break
      taken.push(own.shift()!)
      this.#counts.remove(owner)
      this.#queues.delete(owner)
      if (own.length > 0) this.#queues.set(owner, own)
    }
    this.#size -= taken.length
    return taken
  }

  /**
   * Takes the newest entry of the owner that has most entries. Returns undefined unless that owner will have more of them than
   * `newcomer`, who wants to push one.
   */
  takeFromLongest(newcomer: string): Entry | undefined {
    const longest = this.#counts.ownerOfMost
    if (longest === undefined || this.#counts.most <= this.#counts.of(newcomer) + 1) return undefined
    this.#size--
    this.#counts.remove(longest)
    return this.#queues.get(longest)!.pop()
  }
}
