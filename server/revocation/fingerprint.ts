import { randomBytes } from 'node:crypto'

/**
 * A keyed 64-bit hash of two strings: HalfSipHash-1-3 (github.com/veorq/SipHash) over UTF-16 code units. The key is random in
 * each process, so nobody can choose strings that collide. Two of a million entries collide with a chance of 3e-8, and the
 * effect is that a token is refused until an entry of another expires.
 *
 * The result is in `high` and `low`, two unsigned 32-bit numbers: a hash of a verify allocates nothing.
 */
export class Fingerprint {
  readonly #k0: number
  readonly #k1: number
  #v0 = 0
  #v1 = 0
  #v2 = 0
  #v3 = 0
  high = 0
  low = 0

  constructor(key: Uint8Array = randomBytes(8)) {
    const view = new DataView(key.buffer, key.byteOffset, 8)
    this.#k0 = view.getInt32(0, true)
    this.#k1 = view.getInt32(4, true)
  }

  hash(first: string, second: string): this {
    this.#v0 = this.#k0
    this.#v1 = this.#k1 ^ 0xee
    this.#v2 = this.#k0 ^ 0x6c796765
    this.#v3 = this.#k1 ^ 0x74656462
    this.#add(first)
    this.#add(second)
    // The lengths, so that no two pairs of strings are hashed alike.
    this.#compress((first.length << 16) | (second.length & 0xffff))
    this.#v2 ^= 0xee
    this.#finish()
    this.low = (this.#v1 ^ this.#v3) >>> 0
    this.#v1 ^= 0xdd
    this.#finish()
    this.high = (this.#v1 ^ this.#v3) >>> 0
    return this
  }

  /** Two code units make a word. */
  #add(text: string) {
    const even = text.length & ~1
    for (let i = 0; i < even; i += 2) this.#compress(text.charCodeAt(i) | (text.charCodeAt(i + 1) << 16))
    if (even < text.length) this.#compress(text.charCodeAt(even))
  }

  #compress(word: number) {
    this.#v3 ^= word
    this.#round()
    this.#v0 ^= word
  }

  #finish() {
    this.#round()
    this.#round()
    this.#round()
  }

  #round() {
    let [v0, v1, v2, v3] = [this.#v0, this.#v1, this.#v2, this.#v3]
    v0 = (v0 + v1) | 0
    v1 = rotate(v1, 5) ^ v0
    v0 = rotate(v0, 16)
    v2 = (v2 + v3) | 0
    v3 = rotate(v3, 8) ^ v2
    v0 = (v0 + v3) | 0
    v3 = rotate(v3, 7) ^ v0
    v2 = (v2 + v1) | 0
    v1 = rotate(v1, 13) ^ v2
    v2 = rotate(v2, 16)
    this.#v0 = v0
    this.#v1 = v1
    this.#v2 = v2
    this.#v3 = v3
  }
}

const rotate = (word: number, bits: number) => (word << bits) | (word >>> (32 - bits))
