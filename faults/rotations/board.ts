/** The data shared by the drill's two threads, one of which rotates while the other makes the load. */

export interface Plan {
  /** Ports of the replicas on loopback. */
  ports: number[]
  connections: number
  /** The first belongs to the customer whose secrets are rotated. */
  apiKeys: [rotated: string, ...others: string[]]
  /** 32-bit integers, by their positions in BOARD. */
  board: SharedArrayBuffer
}

/** `rotating` and `stop` are 0 or 1. */
export const BOARD = { requests: 0, rotating: 1, stop: 2 }

export type Kind = 'verify' | 'refresh' | 'issue'

export interface Findings {
  requests: Record<Kind, number>
  /** One message per failure. */
  failures: string[]
  /** Number of accepted requests, by version of the rotated secrets. */
  verified: Map<number, number>
  refreshed: Map<number, number>
  /** Latencies of the other customers' verifies, without and with a rotation in progress (ms). */
  quiet: number[]
  rotating: number[]
}
