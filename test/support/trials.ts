import { inject } from 'vitest'

/** What random trials begin with. A short run is the beginning of the long one. */
export const SEED = inject('seed')

/** How often a hazard is tried: `floor` times by `npm run hazards`, else a hundredth of that, but `least` times. */
export const trials = (floor: number, least = 1) =>
  inject('longRun') ? floor : Math.max(least, Math.ceil(floor / 100))
