import { once } from 'node:events'

/** What a parent asks for, and is answered. */
export interface Asked {
  seconds: number
  callers: number
}

export interface Measured {
  requests: number
  seconds: number
  /** Milliseconds. */
  p50: number
  p99: number
}

/** Says that it is ready, and then does what it is told for as long as its parent lives. */
export async function obey(run: (asked: Asked) => Promise<Measured>): Promise<never> {
  process.on('disconnect', () => process.exit())
  process.send!({ ready: true })
  for (;;) {
    const [asked] = await once(process, 'message')
    process.send!(await run(asked))
  }
}

/** So many callers, each of which asks again as soon as it was answered. */
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
