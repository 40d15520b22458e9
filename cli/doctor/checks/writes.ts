import { CALL_DEADLINE_MS, type Database } from '../../../db/client.ts'
import { Unavailable } from '../../../server/lib/errors.ts'
import { type CheckResult, ok, wrong } from '../result.ts'

/**
 * Sorts more than its memory holds, so that Postgres writes about 16 MiB to a temporary file on the database's disk. The
 * polls of a server only change a row in place, and work on a disk that has no room for another session.
 */
const FILL = `
  set local work_mem = '64kB'; set local temp_tablespaces = '';
  select count(*) from (select repeat('x', 1000) as x from generate_series(1, 16000) as n order by n % 1000, x) as sorted`

export async function disk(db: Database): Promise<CheckResult> {
  try {
    await db.query(FILL)
    return ok('it has room for 16 MiB')
  } catch (error) {
    if (!isOutOfSpace(error)) throw error
    return wrong(
      'its disk is full, so new sessions and tokens fail with 503',
      'free space, or enlarge the disk',
    )
  }
}

const isOutOfSpace = (error: unknown) => error instanceof Unavailable && error.detail === 'database: 53100'

/**
 * A transaction that changes no row and is committed as every other: its commit waits for the same disk and the same
 * standbys.
 */
const COMMIT = `select pg_logical_emit_message(true, 'assay', 'doctor')`

export async function commits(db: Database): Promise<CheckResult> {
  const startedAt = performance.now()
  try {
    await db.query(COMMIT)
    return ok(`one took ${Math.ceil(performance.now() - startedAt)} ms`)
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error
    const waits = await findWaits(db)
    await cancelCommit(db)
    return describeFailure(waits, error)
  }
}

/** Counts this role's commits that wait for a standby, and reads which standbys have to confirm them. */
async function findWaits(db: Database) {
  const [row] = await db.query<{ waits: number; standbys: string }>(
    `select count(*)::int as waits, current_setting('synchronous_standby_names') as standbys
    from pg_stat_activity where wait_event = 'SyncRep'`,
  )
  return row!
}

/** Ends the attempted commit: its backend would keep waiting for the standby although the caller has left. */
const cancelCommit = (db: Database) =>
  db.query(
    `select pg_cancel_backend(pid) from pg_stat_activity
    where wait_event = 'SyncRep' and usename = current_user and query = $1`,
    [COMMIT],
  )

function describeFailure({ waits, standbys }: Awaited<ReturnType<typeof findWaits>>, error: Unavailable) {
  const found = `a commit did not finish within ${CALL_DEADLINE_MS / 1000} s`
  return waits > 0
    ? wrong(
        `${found}: it waits for a synchronous standby (SyncRep in pg_stat_activity; synchronous_standby_names is '${standbys}')`,
        'bring the standby back, or remove it from synchronous_standby_names (docs/operating.md, Failover of Postgres)',
      )
    : wrong(`a commit failed (${error.detail})`, 'check pg_stat_activity and the log of Postgres')
}
