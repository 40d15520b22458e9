/** How much each owner has, and who has most, without a look at every owner. */
export class OwnerCounts {
  readonly #counts = new Map<string, number>()
  /** The owners that have so much. */
  readonly #owners = new Map<number, Set<string>>()
  #most = 0

  of(owner: string): number {
    return this.#counts.get(owner) ?? 0
  }

  /** The most that any owner has; 0 without any. */
  get most(): number {
    return this.#most
  }

  /** An owner that has most. Undefined without any. */
  get ownerOfMost(): string | undefined {
    return this.#owners.get(this.#most)?.values().next().value
  }

  add(owner: string) {
    const count = this.of(owner) + 1
    this.#set(owner, count - 1, count)
    this.#most = Math.max(this.#most, count)
  }

  /** Takes one from an owner that has at least one. */
  remove(owner: string) {
    const count = this.of(owner) - 1
    this.#set(owner, count + 1, count)
    if (!this.#owners.has(this.#most)) this.#most = count
  }

  #set(owner: string, from: number, to: number) {
    const left = this.#owners.get(from)
    left?.delete(owner)
    if (left?.size === 0) this.#owners.delete(from)
    if (to === 0) return void this.#counts.delete(owner)
    this.#counts.set(owner, to)
    const joined = this.#owners.get(to)
    if (joined) joined.add(owner)
    else this.#owners.set(to, new Set([owner]))
  }
}
