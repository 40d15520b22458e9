import { ApiError } from '../lib/errors.ts'

export const BAD_CURSOR = new ApiError(
  'invalid_request',
  'cursor: send next_cursor of the previous page, or omit it',
)

/** The position after the last row of a page: opaque to its reader. */
export const encodeCursor = (at: Date, id: string | number) =>
  Buffer.from(`${at.getTime()} ${id}`).toString('base64url')

export function decodeCursor(text: string | undefined): { at: Date; id: string } | undefined {
  if (text === undefined) return undefined
  const [, time, id] = /^(\d{1,13}) ([\w-]{1,64})$/.exec(Buffer.from(text, 'base64url').toString()) ?? []
  if (time === undefined || id === undefined) throw BAD_CURSOR
  return { at: new Date(Number(time)), id }
}

export function pageSize(text: string | undefined, max = 100): number {
  const size = Number(text ?? 50)
  if (!/^\d{1,4}$/.test(text ?? '50') || size < 1 || size > max)
    throw new ApiError('invalid_request', `limit: a whole number from 1 to ${max}`)
  return size
}

/**
 * Returns the rows of the page, from the `limit + 1` rows that were requested, and the cursor behind the last one if there are
 * more. If the statement read a limited number of rows, the next page continues behind the row that is `lastRead`, which is on
 * this page only if `listed`.
 */
export function pageOf<Row extends { id: string | number; listed?: boolean; lastRead?: boolean }>(
  rows: Row[],
  limit: number,
  at: (row: Row) => Date,
) {
  const listed = rows.filter(row => row.listed !== false)
  const page = listed.slice(0, limit)
  const last = listed.length > limit ? page.at(-1) : rows.find(row => row.lastRead)
  return { page, nextCursor: last && encodeCursor(at(last), last.id) }
}

/** The position after the last row of a page that is sorted by a text, and then by customer id. */
const encodeTextCursor = (text: string, id: string) => Buffer.from(`${id} ${text}`).toString('base64url')

export function decodeTextCursor(cursor: string | undefined): { text: string; id: string } | undefined {
  if (cursor === undefined) return undefined
  const decoded = Buffer.from(cursor, 'base64url').toString()
  const [, id, text] = /^([a-z2-7]{16}) (\P{Cc}{1,300})$/u.exec(decoded) ?? []
  if (text === undefined || id === undefined) throw BAD_CURSOR
  return { text, id }
}

/** Like `pageOf`, for rows that contain the text by which they are sorted. */
export function textPageOf<Row extends { id: string; key: string }>(rows: Row[], limit: number) {
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  return { page, nextCursor: last && rows.length > limit ? encodeTextCursor(last.key, last.id) : undefined }
}
