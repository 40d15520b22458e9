import { randomUUID } from 'node:crypto'
import postgres from 'postgres'

/** What every publication notifies; `publishing` in revocations.ts says so in SQL. */
export const CHANNEL = 'assay_bus'

export interface Hints {
  /** Whether its own test notification was heard: through a pooler in transaction mode LISTEN is accepted and silent. */
  heard: boolean
  close(): Promise<void>
}

/** How long a test notification may take (ms). */
const PATIENCE = 2_000

/**
 * Calls `onHint` when some replica has published. A hint is a hint: losing one costs milliseconds, never the bound. The
 * driver listens again after a lost connection, which counts as a hint, for there may have been some meanwhile.
 */
export async function listenForHints(url: string, onHint: () => void): Promise<Hints> {
  const sql = postgres(url, OPTIONS)
  const proof = randomUUID()
  const { promise: heard, resolve: hear } = Promise.withResolvers<boolean>()
  const close = () => sql.end({ timeout: 1 })
  try {
    await sql.listen(CHANNEL, payload => (payload === proof ? hear(true) : onHint()), onHint)
    setTimeout(hear, PATIENCE, false).unref()
    await sql.notify(CHANNEL, proof)
    return { heard: await heard, close }
  } catch {
    return { heard: false, close }
  }
}

const OPTIONS = {
  max: 1,
  connect_timeout: 2,
  // Seconds, as in postgres.ts. The connection that the proof is sent on is not the one that listens, and may go.
  backoff: 0.2 as never,
  idle_timeout: 20,
  fetch_types: false,
  onnotice: () => {},
}
