/** Small, so that the peer's garbage collector has little to do. No token is used after 10,000 newer ones. */
const GENERATION = 10_000

let prepared = false

/** Entries that are stored from now on come from the load. */
export const seal = () => {
  prepared = true
}

/**
 * A Map that can be written for hours. It keeps all entries from before the load, and the newest 10,000 to 20,000 of later ones:
 * it drops a whole generation at once, which costs least.
 */
export class Store {
  #lasting = new Map()
  #older = new Map()
  #newer = new Map()

  get(key) {
    return this.#newer.get(key) ?? this.#older.get(key) ?? this.#lasting.get(key)
  }

  set(key, value) {
    if (!prepared) {
      this.#lasting.set(key, value)
      return
    }
    if (this.#newer.size === GENERATION) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(key, value)
  }

  delete(key) {
    for (const entries of [this.#newer, this.#older, this.#lasting]) entries.delete(key)
  }

  *[Symbol.iterator]() {
    for (const entries of [this.#newer, this.#older, this.#lasting]) yield* entries
  }
}
