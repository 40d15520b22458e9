/** Repeats a call on 20 connections for half a second. Returns the elapsed milliseconds. */
export async function repeat(ask: (connection: number) => Promise<unknown>): Promise<number> {
  const began = performance.now()
  const connection = async (n: number) => {
    while (performance.now() - began < 500) await ask(n)
  }
  await Promise.all(Array.from({ length: 20 }, (_, n) => connection(n)))
  return performance.now() - began
}

/** The most polls in this time: one every 20 ms for requests, and one every 100 ms by the feed's own timer. */
export const mostPolls = (milliseconds: number) => milliseconds / 20 + milliseconds / 100 + 2
