/** The number of parts. Each grows and is swept separately, so that no step takes long in a table of millions. */
const PARTS = 256
const MIN_CAPACITY = 4
/** The last NumericDate that 32 bits hold, in 2106. A later one would wrap around. */
const MAX_DATE = 2 ** 32 - 1

/** The 64-bit name of an entry. */
export interface Name {
  high: number
  low: number
}

/**
 * Entries by a 64-bit name, each with a NumericDate after which it is dead, and an epoch. They are in typed arrays, outside
 * of the heap: an entry takes 27 to 53 bytes, and costs the garbage collector nothing.
 */
export class ExpiringTable {
  #parts = newParts()
  #size = 0

  get size() {
    return this.#size
  }

  /** The epoch of an entry; 0 without one. Dead entries count until they are swept. */
  epoch({ high, low }: Name): number {
    const part = this.#parts[high >>> 24]!
    const slot = part.find(high, low)
    return part.deadAfter[slot] === 0 ? 0 : part.epoch[slot]!
  }

  /** Adds an entry, or raises its epoch and the end of its life. `epoch` is above 0. */
  raise({ high, low }: Name, epoch: number, deadAfter: number) {
    const part = this.#parts[high >>> 24]!
    const slot = part.find(high, low)
    if (part.deadAfter[slot] === 0) this.#size++
    const end = Math.min(Math.max(part.deadAfter[slot]!, Math.ceil(deadAfter)), MAX_DATE)
    part.set(slot, high, low, Math.max(part.epoch[slot]!, epoch), end)
  }

  /**
   * Removes the entries that are dead at `now`, from the part `from` on, until it has looked at `slots` slots. Returns the part
   * where it stopped, and how many slots are left; the part is undefined after the last one.
   */
  sweep(now: number, from: number, slots: number): { next: number | undefined; left: number } {
    let left = slots
    for (let i = from; i < PARTS; i++) {
      if (left <= 0) return { next: i, left }
      left -= this.#parts[i]!.deadAfter.length
      this.#size -= this.#parts[i]!.sweep(now)
    }
    return { next: undefined, left }
  }

  clear() {
    this.#parts = newParts()
    this.#size = 0
  }
}

/** A hash table with open addressing. A slot whose `deadAfter` is 0 is empty. */
class Part {
  #used = 0
  high!: Uint32Array
  low!: Uint32Array
  deadAfter!: Uint32Array
  epoch!: Float64Array

  constructor() {
    this.#allocate(MIN_CAPACITY)
  }

  #allocate(capacity: number) {
    this.high = new Uint32Array(capacity)
    this.low = new Uint32Array(capacity)
    this.deadAfter = new Uint32Array(capacity)
    this.epoch = new Float64Array(capacity)
  }

  /** The slot of an entry, or the empty one that it would get. */
  find(high: number, low: number): number {
    const last = this.low.length - 1
    let slot = low & last
    while (this.deadAfter[slot] !== 0 && (this.low[slot] !== low || this.high[slot] !== high))
      slot = (slot + 1) & last
    return slot
  }

  set(slot: number, high: number, low: number, epoch: number, deadAfter: number) {
    if (this.deadAfter[slot] === 0) this.#used++
    this.high[slot] = high
    this.low[slot] = low
    this.epoch[slot] = epoch
    this.deadAfter[slot] = deadAfter
    if (this.#used > this.low.length * 0.75) this.#rebuild(this.low.length * 2, 0)
  }

  /** Returns how many were removed. */
  sweep(now: number): number {
    let live = 0
    for (const deadAfter of this.deadAfter) if (deadAfter >= now) live++
    const removed = this.#used - live
    if (removed > 0) this.#rebuild(capacityFor(live), now)
    return removed
  }

  #rebuild(capacity: number, now: number) {
    const { high, low, epoch, deadAfter } = this
    this.#allocate(capacity)
    this.#used = 0
    for (let i = 0; i < low.length; i++)
      if (deadAfter[i] !== 0 && deadAfter[i]! >= now)
        this.set(this.find(high[i]!, low[i]!), high[i]!, low[i]!, epoch[i]!, deadAfter[i]!)
  }
}

function capacityFor(entries: number): number {
  let capacity = MIN_CAPACITY
  while (entries > capacity * 0.75) capacity *= 2
  return capacity
}

const newParts = () => Array.from({ length: PARTS }, () => new Part())
