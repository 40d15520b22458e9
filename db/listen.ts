import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { within } from './deadline.ts'
import { connected, connectionTo, PgConnection } from './pg-connection.ts'

/** What every publication notifies; `publishParts` in queries/change-feed.ts says so in SQL. */
export const CHANNEL = 'assay_changes'

export interface Listener {
  /** Whether its own test notification was heard: through a pooler in transaction mode LISTEN is accepted and silent. */
  heard: boolean
  close(): Promise<void>
}

/** How long a test notification may take (ms). */
const PROOF_TIMEOUT_MS = 2_000
/** A connection that listens, or notifies, is there by then (ms). */
const CONNECT_DEADLINE_MS = 5_000
/** Between the loss of the connection and the next try (ms). */
const RETRY_DELAY_MS = 200

/**
 * Calls `onHint` when some replica has published. A hint is a hint: losing one costs milliseconds, never the bound. After a
 * lost connection it listens again, which counts as a hint, for there may have been some meanwhile.
 */
export async function listenForChanges(url: string, onHint: () => void): Promise<Listener> {
  const proof = randomUUID()
  const proven = Promise.withResolvers<boolean>()
  const onNotice = (payload?: string) => (payload === proof ? proven.resolve(true) : onHint())
  let listener: PgConnection | undefined
  let closed = false

  async function listen() {
    const made = new PgConnection(connectionTo(url))
    listener = made
    const ended = new Promise<void>(resolve => made.on('end', () => resolve()))
    made.on('notification', ({ payload }) => onNotice(payload))
    await within(CONNECT_DEADLINE_MS, listening(made), () => made.cut())
    onHint()
    return { ended }
  }

  async function goOn(listening: ReturnType<typeof listen>) {
    await listening.then(({ ended }) => ended).catch(() => {})
    await listener?.end().catch(() => {})
    await pause(RETRY_DELAY_MS, undefined, { ref: false })
    if (!closed) void goOn(listen())
  }

  const listening = async (connection: PgConnection) => {
    await connection.connect()
    await connection.query(`listen ${CHANNEL}`)
  }

  const first = listen()
  void goOn(first)
  setTimeout(proven.resolve, PROOF_TIMEOUT_MS, false).unref()
  // From another connection: through a pooler who notifies may hear itself.
  first
    .then(() => connected(url, CONNECT_DEADLINE_MS, other => other.query(`notify ${CHANNEL}, '${proof}'`)))
    .catch(() => proven.resolve(false))
  const close = async () => {
    closed = true
    await listener?.end().catch(() => {})
  }
  return { heard: await proven.promise, close }
}
