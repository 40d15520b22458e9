import { setTimeout as pause } from 'node:timers/promises'
import { api, type Json, type Query } from './client.ts'
import type { CursorFile } from './cursor-file.ts'
import { CommandError, EXIT } from './errors.ts'
import { escapeControls, printable } from './output.ts'
import { terminal } from './terminal.ts'

/** A request waits this long for events. Common proxies end a request without an answer after 60 s. */
const WAIT = '30s'
/** Longer than WAIT, because the server answers after it (ms). */
const TIMEOUT_MS = 45_000
const PAGE_ROWS = '1000'
/** The pause after a failed request (ms). It doubles until it has reached MAX_BACKOFF_MS. */
const MIN_BACKOFF_MS = 1_000
const MAX_BACKOFF_MS = 30_000
/** A server that drains answers before the wait is over. The pause gives its place to another (ms). */
const EARLY_PAUSE_MS = 1_000
const EARLY_MS = 25_000

export interface FollowOptions {
  query: Query
  /** The cursor to begin at if the cursor file doesn't exist yet. Undefined is the end of the order. */
  after: string | undefined
  cursorFile: CursorFile | undefined
  /** Prints a line of JSON for each event. */
  json: boolean
}

/** Prints events as they come. Ends only by a signal, or with a CommandError that another try doesn't help. */
export async function followEvents({ query, after, cursorFile, json }: FollowOptions): Promise<never> {
  const format = json ? toJsonLine : toTextLine
  let cursor = cursorFile?.read() ?? after ?? (await readPage({ after: 'latest' })).next
  cursorFile?.write(cursor, true)
  for (;;) {
    const askedAt = performance.now()
    const page = await readPage({ ...query, after: cursor, wait: WAIT, limit: PAGE_ROWS })
    if (page.expired)
      terminal.tell(`assay: skipped ${page.expired} events that were older than AUDIT_RETENTION\n`)
    for (const event of page.events) {
      await terminal.flush(format(event))
      cursorFile?.write(event.cursor, false)
    }
    if (page.next !== cursor) cursorFile?.write(page.next, true)
    cursor = page.next
    const isEarly = page.events.length === 0 && !page.more && performance.now() - askedAt < EARLY_MS
    if (isEarly) await pause(EARLY_PAUSE_MS)
  }
}

const toJsonLine = (event: Json) => `${escapeControls(JSON.stringify(event))}\n`

/** Not a table: the widths of the columns are not known before the events are. */
const toTextLine = ({ at, type, actor, customer_id, subject, ip }: Json) =>
  `${[at, String(type).padEnd(20), actor, customer_id, subject, ip].map(printable).join('  ')}\n`

/** Repeats a request until it succeeds, while its errors may be over soon. */
async function readPage(query: Query): Promise<Json> {
  for (let backoff = MIN_BACKOFF_MS, failed = false; ; backoff = Math.min(2 * backoff, MAX_BACKOFF_MS)) {
    try {
      const page = await api.get('/admin/audit', { query, timeoutMs: TIMEOUT_MS })
      if (failed) terminal.tell('assay: the server answers again\n')
      return page
    } catch (error) {
      if (!isTemporary(error)) throw error
      if (!failed) terminal.tell(`assay: ${printable(error.message)}; retrying\n`)
      failed = true
    }
    await pause(backoff)
  }
}

const isTemporary = (error: unknown): error is CommandError =>
  error instanceof CommandError && (error.code === EXIT.unreachable || error.code === EXIT.tryAgain)
