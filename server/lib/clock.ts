/** The process's two clocks, in milliseconds. Only main.ts and tests make one. */
export interface Clock {
  /** Never goes back, and stands for no date. */
  monotonic(): number
  /** Since 1970, as far as this machine knows. */
  wall(): number
}
