import type { Replica } from './world.ts'

/** Moves a replica on to where the batches that a customer has sent count no more (server/lib/batch-bytes.ts). */
export async function forgetBatches({ clock, changeFeed }: Pick<Replica, 'clock' | 'changeFeed'>) {
  clock.skip(2_000)
  for (let polls = 0; polls < 2; polls++) await changeFeed.poll()
}
