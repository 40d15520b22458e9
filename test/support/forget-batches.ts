import type { Replica } from './world.ts'

/** Advances a replica's clock until a customer's past batches no longer count (server/lib/batch-bytes.ts). */
export async function forgetBatches({ clock, changeFeed }: Pick<Replica, 'clock' | 'changeFeed'>) {
  clock.skip(2_000)
  for (let polls = 0; polls < 2; polls++) await changeFeed.poll()
}
