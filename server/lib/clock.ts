/** The process's clocks, in milliseconds. Only main.ts and tests make them. */
export interface Clock {
  /** Never goes back. Its origin is arbitrary. */
  monotonic(): number
  /** Unix time according to this machine. */
  wall(): number
  /** A monotonic clock that other processes of this machine read too. Readings are comparable only if they have the same id. */
  boot(): { id: string; reading: number }
}
