import type { Call } from './call.ts'

/** A promise that was broken. */
export interface Violation {
  what: string
  /** What differs between two of a kind. */
  detail?: string
  /** Those that show it. */
  calls: Call[]
  /** The names whose whole history tells more. */
  about: string[]
}
