import { Paced } from '../lib/paced.ts'

/** Bytes that are written at once. */
const SLICE = 64 * 1024

/** A slice of one answer is written at each interval (ms): 32 MB a second of all answers together. */
const slices = new Paced(2)

/**
 * The bytes as a stream whose slices take turns with those of all other such streams, and wait until the client has taken the one
 * before. Otherwise callers that read nothing could make the server copy gigabytes a second to the system.
 */
export function inSlices(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array> {
  let start = 0
  let next = () => {}
  const pull = (controller: ReadableStreamDefaultController<Uint8Array>) =>
    new Promise<void>(resolve => {
      next = () => {
        controller.enqueue(bytes.subarray(start, start + SLICE))
        start += SLICE
        if (start >= bytes.length) controller.close()
        resolve()
      }
      slices.add(next)
    })
  // Nothing is read before it is asked for.
  return new ReadableStream({ pull, cancel: () => slices.remove(next) }, { highWaterMark: 0 })
}
