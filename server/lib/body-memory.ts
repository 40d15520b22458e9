import { RateLimitedError, Unavailable } from './errors.ts'

const MIB = 1024 * 1024
/**
 * Bytes of request bodies in memory at once. A client may send the last byte of a body 15 s after the first, and a batch has
 * 1 MiB: without a limit, 400 slow clients would take 400 MiB.
 */
const MAX_BYTES = { total: 64 * MIB, address: 8 * MIB, credential: 2 * MIB }

/** `credential` is undefined if it is not checked before the body is read. */
export interface BodySender {
  address: string
  credential: string | undefined
}

/** Counts the bytes of the bodies that this process holds: in all, of each address and of each credential. */
export class BodyMemory {
  #total = 0
  readonly #held = new Map<string, number>()

  get bytes(): number {
    return this.#total
  }

  /** Starts the count of one request. */
  hold(): BodyHold {
    return new BodyHold(this)
  }

  /** Throws RateLimitedError if the sender has too many bytes here, and Unavailable if all senders together have too many. */
  add(sender: BodySender, bytes: number) {
    if (this.#total + bytes > MAX_BYTES.total) throw new Unavailable(MEMORY_USED, 'bodies', MEMORY_USED)
    for (const [key, max] of limitsOf(sender))
      if ((this.#held.get(key) ?? 0) + bytes > max) throw new RateLimitedError(1, TOO_MANY_BYTES)
    this.#change(sender, bytes)
  }

  remove(sender: BodySender, bytes: number) {
    this.#change(sender, -bytes)
  }

  #change(sender: BodySender, bytes: number) {
    this.#total += bytes
    for (const [key] of limitsOf(sender)) {
      const held = (this.#held.get(key) ?? 0) + bytes
      if (held === 0) this.#held.delete(key)
      else this.#held.set(key, held)
    }
  }
}

const TOO_MANY_BYTES =
  'too many bytes of your requests are in progress; send fewer at once, and try again in 1 s'
const MEMORY_USED = 'the server is processing too many request bytes; try again'

const limitsOf = ({ address, credential }: BodySender): [key: string, max: number][] => [
  [`address ${address}`, MAX_BYTES.address],
  ...(credential === undefined
    ? []
    : [[`credential ${credential}`, MAX_BYTES.credential] as [string, number]]),
]

/** Counts the bytes of one request. `release` must be called however the request ends. */
export class BodyHold {
  readonly #memory: BodyMemory
  #sender: BodySender | undefined
  #bytes = 0

  constructor(memory: BodyMemory) {
    this.#memory = memory
  }

  take(sender: BodySender, bytes: number) {
    this.#memory.add(sender, bytes)
    this.#sender = sender
    this.#bytes += bytes
  }

  release() {
    if (this.#sender !== undefined) this.#memory.remove(this.#sender, this.#bytes)
    this.#sender = undefined
  }
}
