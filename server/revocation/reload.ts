import type { Page, RevocationRow } from '../../db/queries/change-feed.ts'
import { isRestart, isSameDatabase } from '../../db/queries/position.ts'
import type { Log } from '../lib/logger.ts'

/** If the database's clock goes back further than this (ms), rows that were dropped from memory may be live again. */
const MAX_CLOCK_STEP_BACK_MS = 30_000
/**
 * After a longer time than this without a poll (ms), rows may have been added and removed. Customer changes are kept longer (3
 * h).
 */
const MAX_GAP_MS = 3_600_000

/**
 * Why a replica drops all state and reads it again; a metrics label, so a closed set.
 *
 * - commits_lost: the database no longer has changes that were committed.
 * - timeline: another server has been promoted, whose number is not lower. LastChange checks whether it has the same changes.
 * - restart: the same server was started again. Its files may be restored ones.
 * - database: it is another database.
 * - clock: the database's clock went back.
 * - gap: the last poll was too long ago.
 */
export const RELOAD_REASONS = ['commits_lost', 'timeline', 'restart', 'database', 'clock', 'gap'] as const
export type ReloadReason = (typeof RELOAD_REASONS)[number]

/** The state of a replica when it sends a poll. */
export interface KnownPosition {
  /** POSITION in db/queries/position.ts. */
  timeline: string
  /** The highest number that is known to be committed, by a poll or by an act of this replica. */
  committed: number
  /** The database's time at the last poll and at the last removal of expired rows (Unix time, ms). */
  readAt: number
  sweptAt: number
}

/** Whether the local state can't be continued from the answer, and why. Undefined: it can. */
export function findReloadReason(known: KnownPosition, found: Page): ReloadReason | undefined {
  if (found.seq < known.committed) return 'commits_lost'
  if (found.timeline !== known.timeline) return findServerChange(known.timeline, found.timeline)
  if (found.now < known.sweptAt - MAX_CLOCK_STEP_BACK_MS) return 'clock'
  return found.now - known.readAt > MAX_GAP_MS ? 'gap' : undefined
}

function findServerChange(known: string, found: string): 'restart' | 'timeline' | 'database' {
  if (isRestart(known, found)) return 'restart'
  return isSameDatabase(known, found) ? 'timeline' : 'database'
}

const MESSAGES: Record<Exclude<ReloadReason, 'commits_lost' | 'restart'>, string> = {
  timeline: 'another database server has taken over, and its change feed is not behind; reloading all state',
  database: 'DATABASE_URL points to another database than before; reloading all state',
  clock: "the database's clock was set back; reloading all state",
  gap: 'the last poll of the database was too long ago; reloading all state',
}

/**
 * Lost commits are an error, because an operator must repeat the lost acts. Everything else is repaired by the
 * reload.
 */
export function logReload(log: Log, reason: ReloadReason, known: KnownPosition, found: Page) {
  const timelines = { reason, oldTimeline: known.timeline, newTimeline: found.timeline }
  if (reason === 'restart')
    return log.info(timelines, 'the database server has restarted; reloading all state')
  if (reason !== 'commits_lost') return log.warn(timelines, MESSAGES[reason])
  const numbers = { committed: known.committed, found: found.seq, lost: known.committed - found.seq }
  log.error({ ...timelines, ...numbers }, describeLoss(numbers))
}

const describeLoss = ({ committed, found, lost }: Record<'committed' | 'found' | 'lost', number>) =>
  `commits are lost: changes up to number ${committed} were committed, but the database now has only those up to ${found}. ` +
  `At least ${lost} revocations, rotations or other changes are undone, and sessions may be missing; ` +
  'follow docs/operating.md#assaycommitslost'

/**
 * Finds lost commits whose numbers were taken by new changes before this replica polled again. It remembers the last change that
 * a poll returned. If the reload returns another change under that number, the database has lost the earlier one.
 */
export class LastChange {
  readonly #log: Log
  #last: RevocationRow | undefined
  /** The last change before a reload, until the reload has passed its number. */
  #before: RevocationRow | undefined

  constructor(log: Log) {
    this.#log = log
  }

  /** Another database has other changes, and lost commits have already been logged. */
  reset(reason: ReloadReason) {
    const isComparable = reason !== 'database' && reason !== 'commits_lost'
    this.#before = isComparable ? (this.#last ?? this.#before) : undefined
    this.#last = undefined
  }

  /** Takes the rows of a poll. Returns whether they show a loss, which is then logged. */
  isReplaced(rows: RevocationRow[]): boolean {
    this.#last = rows.at(-1) ?? this.#last
    const [before, last] = [this.#before, this.#last]
    if (!before || !last || last[0] < before[0]) return false
    this.#before = undefined
    const found = rows.find(([seq]) => seq === before[0])
    if (!found || isSameChange(before, found)) return false
    this.#log.error({ reason: 'commits_lost', number: before[0] }, REPLACED)
    return true
  }
}

/** Compares all but the times. A missing row proves nothing, because maintenance and erasures delete rows. */
const isSameChange = (one: RevocationRow, other: RevocationRow) =>
  [0, 1, 2, 3, 4].every(column => one[column] === other[column])

const REPLACED =
  'commits are lost: the change with this number was committed, and the database now has another one in its place. ' +
  'Revocations, rotations or other changes are undone, and sessions may be missing; follow docs/operating.md#assaycommitslost'
