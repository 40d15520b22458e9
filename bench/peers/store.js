/** Small, so that the peer's garbage collector has little to do; no token is used after 10,000 newer ones. */
const GENERATION = 10_000

let prepared = false

/** From now on, what is stored is what the load makes. */
export const seal = () => {
  prepared = true
}

/**
 * A Map that may be written for hours. What was there when the load began stays; of what comes later the newest 10,000 to
 * 20,000 stay: a generation is dropped whole, which costs least.
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
