/** The process's two clocks, in milliseconds. Only main.ts and tests make one. */
export interface Clock {
  /** Never goes back. Its origin is arbitrary. */
  monotonic(): number
  /** Unix time according to this machine. */
  wall(): number
}
