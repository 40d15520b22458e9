import { DATABASE_IDENTITY } from '../database-identity.ts'
import { type SQL, sql } from '../drizzle.ts'
import { changeFeed } from '../schema/change-feed.ts'

/** The position of a database: its latest change, and which running database it is. */

/**
 * The counter. Every change leaves a dead version of its row, and all of them stay while any older transaction is open on
 * the server. The highest is the only live one, and the index has it first.
 */
export const COUNTER: SQL = sql`(select ${changeFeed.seq} from ${changeFeed} order by ${changeFeed.seq} desc limit 1)`

/**
 * The position of the database, which every statement reads together with the state that it uses: the counter,
 * whether this is a standby, and the timeline. Numbers compare on one timeline only, which is one running database:
 *
 * - The start of the server tells copies of its files apart, which share the system id. It also shows that files were
 *   restored in place.
 * - Postgres's own timeline changes with a promotion, which may have lost commits.
 * - The oids tell apart a copy on the same server, and a schema that was restored beside the lost one.
 */
export const POSITION = sql`
  ${COUNTER} as seq,
  pg_is_in_recovery() as standby,
  ${sql.raw(DATABASE_IDENTITY)} || '/' || 'assay.change_feed'::regclass::oid
    || '/' || case when pg_is_in_recovery() then 'standby'
    else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end
    || '/' || extract(epoch from pg_postmaster_start_time()) as timeline`

/** Whether two timelines differ only in the start of the server. */
export const isRestart = (one: string, other: string) =>
  one !== other && withoutStart(one) === withoutStart(other)

/** Whether two timelines are of one database, although another server of its cluster may have it now. */
export const isSameDatabase = (one: string, other: string) => withoutServer(one) === withoutServer(other)

const withoutStart = (timeline: string) => timeline.slice(0, timeline.lastIndexOf('/'))
const withoutServer = (timeline: string) => timeline.split('/').slice(0, -2).join('/')

export interface Position {
  seq: number
  standby: boolean
  timeline: string
}
