import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { connect, connected, targetOf } from './connect.ts'
import type { Target } from './connection-url.ts'
import { within } from './deadline.ts'
import type { PostgresConnection } from './postgres-connection.ts'
import { linkError } from './postgres-socket.ts'

/** Every change notifies this channel: see `publishParts` in queries/change-feed.ts. */
const CHANNEL = 'assay_changes'

export type Listener = Awaited<ReturnType<typeof listenForChanges>>

/** A test notification may take this long (ms). */
const PROOF_TIMEOUT_MS = 2_000
/** LISTEN, and the connection that sends the test notification, may take this long (ms). */
const LISTEN_TIMEOUT_MS = 5_000
/** The pause between losing the connection and the next attempt (ms). */
const RETRY_DELAY_MS = 200

/**
 * Calls `onHint` when a replica has published a change. A lost hint delays a poll by milliseconds and never breaks the bound.
 * After a lost connection it listens again and calls `onHint`, because notifications may have been missed. `heard` tells whether
 * its own test notification arrived: a pooler in transaction mode accepts LISTEN but delivers nothing.
 */
export async function listenForChanges(url: string, onHint: () => void, reread?: Target['reread']) {
  const target = targetOf(url, reread)
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
  // Notify from another connection, because a pooler may deliver the notification only to the connection that sent it.
  first
    .then(() =>
      connected(url, LISTEN_TIMEOUT_MS, other => other.query(`notify ${CHANNEL}, '${proof}'`), reread),
    )
    .catch(() => proven.resolve(false))
  const close = async () => {
    isClosed = true
    await connection?.close()
  }
  return { heard: await proven.promise, close }
}
