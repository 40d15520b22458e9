import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { within } from './deadline.ts'
import { connect, connected, type PostgresConnection, targetOf } from './postgres-connection.ts'
import { linkError } from './postgres-socket.ts'

/** What every publication notifies; `publishing` in queries/change-feed.ts says so in SQL. */
export const CHANNEL = 'assay_changes'

export interface Listener {
  /** Whether its own test notification was heard: through a pooler in transaction mode LISTEN is accepted and silent. */
  heard: boolean
  close(): Promise<void>
}

/** How long a test notification may take (ms). */
const PROOF_TIMEOUT_MS = 2_000
/** How long a LISTEN, or a connection that notifies, may take (ms). */
const LISTEN_TIMEOUT_MS = 5_000
/** Between the loss of the connection and the next try (ms). */
const RETRY_DELAY_MS = 200

/**
 * Calls `onHint` when some replica has published. A hint is a hint: losing one costs milliseconds, never the bound. After a
 * lost connection it listens again, which counts as a hint, for there may have been some meanwhile.
 */
export async function listenForChanges(url: string, onHint: () => void): Promise<Listener> {
  const target = targetOf(url)
  const proof = randomUUID()
  const proven = Promise.withResolvers<boolean>()
  const onNotify = (payload: string) => (payload === proof ? proven.resolve(true) : onHint())
  let connection: PostgresConnection | undefined
  let isClosed = false

  async function listen() {
    const made = await connect(target, { onNotify })
    connection = made
    if (isClosed) return made.close()
    await within(LISTEN_TIMEOUT_MS, made.query(`listen ${CHANNEL}`), () => made.destroy(linkError('TIMEOUT')))
    onHint()
  }

  async function listenAgain(listening: Promise<void>) {
    await listening.then(
      () => connection?.closed,
      error => connection?.destroy(error),
    )
    await pause(RETRY_DELAY_MS, undefined, { ref: false })
    if (!isClosed) void listenAgain(listen())
  }

  const first = listen()
  void listenAgain(first)
  setTimeout(proven.resolve, PROOF_TIMEOUT_MS, false).unref()
  // From another connection: through a pooler who notifies may hear itself.
  first
    .then(() => connected(url, LISTEN_TIMEOUT_MS, other => other.query(`notify ${CHANNEL}, '${proof}'`)))
    .catch(() => proven.resolve(false))
  const close = async () => {
    isClosed = true
    await connection?.close()
  }
  return { heard: await proven.promise, close }
}
