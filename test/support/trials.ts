import { inject } from 'vitest'

/** The seed of random trials. A short run is the beginning of the long one. */
export const SEED = inject('seed')

/** How often a hazard is tried: `floor` times with `npm run hazards`; otherwise a hundredth of that, at least `least` times. */
export const trials = (floor: number, least = 1) =>
  inject('longRun') ? floor : Math.max(least, Math.ceil(floor / 100))
