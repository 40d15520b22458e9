import { once } from 'node:events'

/** A measurement that the parent process requests. */
export interface Asked {
  seconds: number
  callers: number
}

export interface Measured {
  requests: number
  seconds: number
  /** In milliseconds. */
  p50: number
  p99: number
}

/** Reports that it is ready, then runs each measurement that its parent requests, until the parent exits. */
export async function obey(run: (asked: Asked) => Promise<Measured>): Promise<never> {
  process.on('disconnect', () => process.exit())
  process.send!({ ready: true })
  for (;;) {
    const [asked] = await once(process, 'message')
    process.send!(await run(asked))
  }
}

/** Runs `callers` loops, each of which calls `run` again as soon as it has finished. */
export async function measure({ seconds, callers }: Asked, run: () => Promise<void>): Promise<Measured> {
  const took: number[] = []
  const began = performance.now()
  const until = began + seconds * 1000
  await Promise.all(
    Array.from({ length: callers }, async () => {
      for (let sent = performance.now(); sent < until; sent = performance.now()) {
        await run()
        took.push(performance.now() - sent)
      }
    }),
  )
  const elapsed = (performance.now() - began) / 1000
  took.sort((a, b) => a - b)
  const at = (part: number) => took[Math.floor(took.length * part)]!
  return { requests: took.length, seconds: elapsed, p50: at(0.5), p99: at(0.99) }
}
