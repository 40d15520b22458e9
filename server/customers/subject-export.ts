import type { AuditContext } from '../../db/queries/audit.ts'
import {
  type ExportedEvent,
  type ExportedSession,
  exportEvents,
  exportSessions,
} from '../../db/queries/subject-export.ts'
import { ApiError } from '../lib/errors.ts'
import type { Services } from '../services.ts'

export type { ExportedEvent, ExportedSession } from '../../db/queries/subject-export.ts'

/** The most rows of one page. */
export const PAGE_ROWS = 500

export interface SubjectQuery {
  customerId: string
  subject: string
}

/** The last session or event that was read. */
export interface Position {
  at: Date
  id: string
}

export type ExportedRows<Row> = {
  exportedAt: Date
  /** The rows of a page, and one more if there are more. */
  rows: Row[]
}

/** Reads sessions of the subject, newest first, and what is stored about its revocation. Throws `not_found`. */
export async function readSessions(
  { db }: Services,
  query: SubjectQuery,
  before: Position | undefined,
  origin: AuditContext,
): Promise<ExportedRows<ExportedSession & { id: string }> & { first: ExportedSession }> {
  const rows = await exportSessions(db, { ...origin, ...query, ...positionOf(before), limit: PAGE_ROWS + 1 })
  return { ...toPage(rows), first: rows[0]! }
}

/** Reads events that name the subject, newest first. Throws `not_found`. */
export async function readEvents(
  { db }: Services,
  query: SubjectQuery,
  before: Position,
  origin: AuditContext,
): Promise<ExportedRows<ExportedEvent>> {
  const position = { beforeAt: before.at, beforeId: Number(before.id) }
  return toPage(await exportEvents(db, { ...origin, ...query, ...position, limit: PAGE_ROWS + 1 }))
}

const positionOf = (before: Position | undefined) => ({ beforeAt: before?.at, beforeId: before?.id })

function toPage<Row extends { id: string | number | null; exportedAt: Date }>(rows: Row[]) {
  const [first] = rows
  if (!first) throw new ApiError('not_found', 'no such customer; check the id')
  const found = rows.filter((row): row is Row & { id: NonNullable<Row['id']> } => row.id !== null)
  return { exportedAt: first.exportedAt, rows: found }
}
