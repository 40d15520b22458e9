import { randomBytes } from 'node:crypto'

/**
 * A keyed 64-bit hash of two strings: HalfSipHash-1-3 (github.com/veorq/SipHash) over UTF-16 code units. The key is random in
 * each process, so no attacker can choose strings that collide. The chance that two of a million entries collide is 3e-8. The
 * effect would be that a token is refused until another token's entry expires.
 *
 * The result is in `high` and `low`, two unsigned 32-bit numbers, so that hashing allocates nothing.
 */
export class Fingerprint {
  readonly #k0: number
  readonly #k1: number
  high = 0
  low = 0

  constructor(key: Uint8Array = randomBytes(8)) {
    const view = new DataView(key.buffer, key.byteOffset, 8)
    this.#k0 = view.getInt32(0, true)
    this.#k1 = view.getInt32(4, true)
  }

  /** Its steps are in one function, because function calls would take longer than the steps. */
  hash(first: string, second: string): this {
    const [firstWords, words] = [
      (first.length + 1) >> 1,
      ((first.length + 1) >> 1) + ((second.length + 1) >> 1),
    ]
    let v0 = this.#k0
    let v1 = this.#k1 ^ 0xee
    let v2 = this.#k0 ^ 0x6c796765
    let v3 = this.#k1 ^ 0x74656462
    // The words are two code units each, then the lengths, so that no two pairs of strings have the same input. Six rounds
    // without a word follow.
    for (let i = 0; i < words + 7; i++) {
      let word = 0
      if (i < firstWords) word = wordAt(first, i)
      else if (i < words) word = wordAt(second, i - firstWords)
      else if (i === words) word = (first.length << 16) | (second.length & 0xffff)
      else if (i === words + 1) v2 ^= 0xee
      else if (i === words + 4) {
        this.low = (v1 ^ v3) >>> 0
        v1 ^= 0xdd
      }
      v3 ^= word
      v0 = (v0 + v1) | 0
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0
      v0 = (v0 << 16) | (v0 >>> 16)
      v2 = (v2 + v3) | 0
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2
      v0 = (v0 + v3) | 0
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0
      v2 = (v2 + v1) | 0
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2
      v2 = (v2 << 16) | (v2 >>> 16)
      v0 ^= word
    }
    this.high = (v1 ^ v3) >>> 0
    return this
  }
}

/** Behind the end of the text, charCodeAt returns NaN, which counts as 0. */
const wordAt = (text: string, i: number) => text.charCodeAt(2 * i) | (text.charCodeAt(2 * i + 1) << 16)
