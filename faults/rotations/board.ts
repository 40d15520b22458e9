/** What the drill's two threads, the one that rotates and the one that loads, tell each other. */

export interface Plan {
  /** Of the replicas, on loopback. */
  ports: number[]
  connections: number
  /** The first is the one whose secrets are rotated. */
  apiKeys: [rotated: string, ...others: string[]]
  /** Of 32-bit integers, by place (BOARD). */
  board: SharedArrayBuffer
}

/** `rotating` and `stop` are 0 or 1. */
export const BOARD = { requests: 0, rotating: 1, stop: 2 }

export type Kind = 'verify' | 'refresh' | 'issue'

export interface Findings {
  requests: Record<Kind, number>
  /** In words. */
  failures: string[]
  /** Of the rotated secrets, those whose tokens were accepted, by how many requests. */
  verified: Map<number, number>
  refreshed: Map<number, number>
  /** Of the other customers' verifies, while nothing was rotated and while something was (ms). */
  quiet: number[]
  rotating: number[]
}
