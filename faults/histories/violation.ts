import type { Call } from './call.ts'

/** A promise that was broken. */
export interface Violation {
  what: string
  /** Distinguishes violations of the same kind. */
  detail?: string
  /** The calls that show it. */
  calls: Call[]
  /** Names whose whole history helps to explain it. */
  about: string[]
}
