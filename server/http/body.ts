import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { ApiError, CodedBodyError, PayloadTooLargeError } from '../lib/errors.ts'
import { OnePerTurn } from '../lib/one-per-turn.ts'
import { assertFewItems, parseStrictJson } from '../lib/strict-json.ts'
import { type AppContext, bodySender } from './env.ts'
import { uniqueParams } from './params.ts'
import { check } from './validate.ts'

/** The most bytes of a body. */
export const BODY_LIMIT = 16 * 1024
export const BATCH_LIMIT = 1024 * 1024

/**
 * Reads the whole body. Throws PayloadTooLargeError at the first byte over the limit, `invalid_request` if it doesn't
 * arrive completely, and what `take` throws. Reads Node's request, because Hono's `bodyLimit` and `c.req.text()`
 * would make a web stream of each body.
 */
function readBytes(
  incoming: IncomingMessage,
  limit: number,
  take: (bytes: number) => void,
): Promise<BodyBuffer> {
  return new Promise((resolve, reject) => {
    const length = Number(incoming.headers['content-length'])
    if (length > limit) return reject(new PayloadTooLargeError(limit))
    const body = new BodyBuffer({ length, limit, take })
    const broken = () =>
      reject(new ApiError('invalid_request', 'the body is incomplete; send the request again'))
    // The client left before the body was read: no further event will come.
    if (incoming.destroyed) return broken()
    incoming.on('data', function append(chunk: Buffer) {
      try {
        body.append(chunk)
        if (body.isLarge) waitTurn(incoming)
      } catch (error) {
        incoming.off('data', append).pause()
        reject(error)
      }
    })
    incoming.once('end', () => resolve(body))
    incoming.once('error', broken)
    incoming.once('close', () => incoming.readableEnded || broken())
  })
}

/**
 * Reads chunks of large bodies one by one. Otherwise Node reads up to 2 MiB per connection in one turn of the event
 * loop.
 */
const largeChunks = new OnePerTurn()

function waitTurn(incoming: IncomingMessage) {
  incoming.pause()
  void largeChunks.run(() => incoming.resume())
}

interface BodyBufferOptions {
  /** The value of Content-Length; NaN without one. */
  length: number
  limit: number
  /** Called with the bytes of memory before they are allocated. */
  take(bytes: number): void
}

/** A body that is larger than this gets a buffer of BATCH_LIMIT at once (bytes). */
const LARGE = 64 * 1024
/** Buffers for reuse: without them each large body causes a garbage collection. */
const spare: Buffer[] = []
const MAX_SPARE = 8

/**
 * Grows by doubling: a client may send a body in a million chunks, and each would be a separate object. A body that
 * arrives in one chunk, as most do, is neither copied nor counted, because it is processed without waiting.
 */
class BodyBuffer {
  readonly #length: number
  readonly #limit: number
  readonly #take: (bytes: number) => void
  #buffer: Buffer = Buffer.alloc(0)
  #size = 0

  constructor({ length, limit, take }: BodyBufferOptions) {
    this.#length = length
    this.#limit = limit
    this.#take = take
  }

  append(chunk: Buffer) {
    const size = this.#size + chunk.length
    if (size > this.#limit) throw new PayloadTooLargeError(this.#limit)
    if (chunk.length === this.#length) this.#buffer = chunk
    if (size > this.#buffer.length) this.#grow(this.#capacityFor(size))
    if (this.#buffer !== chunk) chunk.copy(this.#buffer, this.#size)
    this.#size = size
  }

  #capacityFor(size: number): number {
    if (size > LARGE) return this.#limit
    return Math.min(this.#limit, this.#size === 0 ? size : 2 * size)
  }

  #grow(capacity: number) {
    this.#take(capacity - this.#buffer.length)
    const larger = (capacity === BATCH_LIMIT ? spare.pop() : undefined) ?? Buffer.allocUnsafeSlow(capacity)
    this.#buffer.copy(larger, 0, 0, this.#size)
    this.#buffer = larger
  }

  get isLarge(): boolean {
    return this.#size > LARGE
  }

  /** The text of the whole body. Throws `invalid_request`. After this call the buffer may be used for another body. */
  read(): string {
    const bytes = this.#buffer.subarray(0, this.#size)
    try {
      if (this.isLarge) assertFewItems(bytes)
      return utf8.decode(bytes)
    } catch (error) {
      throw error instanceof ApiError ? error : NOT_UTF8
    } finally {
      if (this.#buffer.length === BATCH_LIMIT && spare.length < MAX_SPARE) spare.push(this.#buffer)
      this.#buffer = Buffer.alloc(0)
    }
  }
}

const NOT_UTF8 = new ApiError('invalid_request', 'the body is not UTF-8; encode it as UTF-8')

/** Large texts are read one by one: each takes about a millisecond. */
const largeTexts = new OnePerTurn()

const IDENTITY = /^(?:identity)?$/i
const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Throws CodedBodyError before the body is read. */
async function readText(c: AppContext, limit: number): Promise<string> {
  if (!IDENTITY.test(c.req.header('content-encoding') ?? '')) throw new CodedBodyError()
  const incoming = c.env?.incoming
  const sender = bodySender(c)
  const take = (bytes: number) => c.get('body').take(sender, bytes)
  if (!incoming) return ''
  const body = await readBytes(incoming, limit, take)
  return body.isLarge ? largeTexts.run(() => body.read()) : body.read()
}

export const mediaType = (c: AppContext) =>
  c.req.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase()

/** A form's parameters. Empty ones count as absent (RFC 6749 3.2). `repeatable`: as in `uniqueParams`. */
export async function readForm(
  c: AppContext,
  repeatable?: ReadonlySet<string>,
): Promise<Map<string, string>> {
  if (mediaType(c) !== 'application/x-www-form-urlencoded')
    throw new ApiError('invalid_request', 'send a form: Content-Type: application/x-www-form-urlencoded')
  const params = new URLSearchParams(await readText(c, BODY_LIMIT))
  return uniqueParams(
    [...params].filter(([, value]) => value !== ''),
    repeatable,
  )
}

/** A JSON body, validated by the schema. Throws `invalid_request`. */
export async function readJson<Schema extends z.ZodType>(
  c: AppContext,
  schema: Schema,
  limit = BODY_LIMIT,
): Promise<z.infer<Schema>> {
  if (mediaType(c) !== 'application/json')
    throw new ApiError('invalid_request', 'send JSON: Content-Type: application/json')
  return check(schema, parseStrictJson(await readText(c, limit)))
}
