/** Counts per owner, and finds the owner with the most without reading every owner. */
export class OwnerCounts {
  readonly #counts = new Map<string, number>()
  /** The owners by their count, for counts of two and more: most owners never have more than one. */
  readonly #owners = new Map<number, Set<string>>()
  #most = 0

  of(owner: string): number {
    return this.#counts.get(owner) ?? 0
  }

  /** The highest count of any owner; 0 if there is none. */
  get most(): number {
    return this.#most
  }

  /** An owner with the highest count. Undefined if there is none. */
  get ownerOfMost(): string | undefined {
    const owners = this.#most > 1 ? this.#owners.get(this.#most)! : this.#counts
    return owners.keys().next().value
  }

  add(owner: string) {
    const count = this.of(owner) + 1
    this.#set(owner, count - 1, count)
    this.#most = Math.max(this.#most, count)
  }

  /** Subtracts one from the count of an owner, which must be at least one. */
  remove(owner: string) {
    const count = this.of(owner) - 1
    this.#set(owner, count + 1, count)
    if (this.#most > 1 ? !this.#owners.has(this.#most) : this.#counts.size === 0) this.#most = count
  }

  #set(owner: string, from: number, to: number) {
    if (from > 1) this.#leave(owner, from)
    if (to === 0) this.#counts.delete(owner)
    else this.#counts.set(owner, to)
    if (to > 1) this.#join(owner, to)
  }

  #leave(owner: string, count: number) {
    const owners = this.#owners.get(count)!
    owners.delete(owner)
    if (owners.size === 0) this.#owners.delete(count)
  }

  #join(owner: string, count: number) {
    const owners = this.#owners.get(count)
    if (owners) owners.add(owner)
    else this.#owners.set(count, new Set([owner]))
  }
}
