import { OnePerTurn } from '../lib/one-per-turn.ts'

/** Bytes that are written at once. */
const SLICE = 64 * 1024

const slices = new OnePerTurn()

/**
 * The bytes as a stream whose slices take turns with those of all other such streams, and wait until the client has taken the one
 * before. Node would copy all of the bytes to the system at once.
 */
export function inSlices(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array> {
  let start = 0
  const next = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    controller.enqueue(bytes.subarray(start, start + SLICE))
    start += SLICE
    if (start >= bytes.length) controller.close()
  }
  return new ReadableStream(
    { pull: controller => slices.run(() => next(controller)) },
    // Nothing is read before it is asked for.
    { highWaterMark: 0 },
  )
}
