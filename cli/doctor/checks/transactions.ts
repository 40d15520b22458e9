import type { Database } from '../../../db/client.ts'
import { type CheckResult, ok, warning } from '../result.ts'

/** Older ones are named (minutes). */
const MAX_MINUTES = 5
/** A replication slot or a standby may hold back the removal of dead rows by this many transactions. */
const MAX_TRANSACTIONS_BEHIND = 100_000

interface Holder {
  kind: 'session' | 'prepared'
  id: string
  role: string
  application: string
  state: string
  minutes: number
}

/**
 * Finds the transaction that keeps Postgres from removing dead rows of this database: the oldest one with a snapshot
 * or an id, including prepared ones. Sessions of other roles have no times for a role without pg_read_all_stats.
 */
const OLDEST = `
  select kind, id, role, application, state, floor(seconds / 60)::int as minutes from (
    select 'session' as kind, pid::text as id, usename::text as role, application_name as application, state,
      extract(epoch from clock_timestamp() - xact_start) as seconds
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
      and xact_start is not null and (backend_xid is not null or backend_xmin is not null)
    union all
    select 'prepared', gid, owner::text, '', 'prepared', extract(epoch from clock_timestamp() - prepared)
    from pg_prepared_xacts where database = current_database()
  ) as holder order by seconds desc limit 1`

const BEHIND = `
  select name, behind from (
    select 'the replication slot ' || slot_name as name, greatest(age(xmin), age(catalog_xmin)) as behind
    from pg_replication_slots
    union all
    select 'a standby with hot_standby_feedback (' || application_name || ')', age(backend_xmin)
    from pg_stat_replication
  ) as held where behind > ${MAX_TRANSACTIONS_BEHIND} order by behind desc limit 1`

/**
 * Names the transactions that keep dead rows. These slow down every poll, and in time everything that reads the
 * tables.
 */
export async function transactions(db: Database, maxMinutes = MAX_MINUTES): Promise<CheckResult> {
  const [oldest] = await db.query<Holder>(OLDEST)
  if (oldest && oldest.minutes >= maxMinutes) return describeOldest(oldest)
  const [held] = await db.query<{ name: string; behind: number }>(BEHIND)
  if (held)
    return warning(
      `${held.name} keeps Postgres from removing the dead rows of ${held.behind} transactions`,
      'let its consumer catch up, or drop a slot without a consumer: select pg_drop_replication_slot(NAME)',
    )
  return ok(`none is older than ${maxMinutes} min${await describeHidden(db)}`)
}

function describeOldest({ kind, id, role, application, state, minutes }: Holder): CheckResult {
  if (kind === 'prepared')
    return warning(
      `the prepared transaction '${id}' of ${role} has been open for ${minutes} min, so no dead row can be removed`,
      `commit prepared '${id}', or rollback prepared '${id}'`,
    )
  const name = application === '' ? role : `${role}, ${application}`
  return warning(
    `process ${id} (${name}) has had a transaction open for ${minutes} min (${state}), so no dead row can be removed`,
    `end it: select pg_terminate_backend(${id}); to end such sessions automatically, set idle_in_transaction_session_timeout for its role`,
  )
}

async function describeHidden(db: Database): Promise<string> {
  const [row] = await db.query<{ role: string; all: boolean }>(
    `select current_user::text as role, pg_has_role('pg_read_all_stats', 'usage') as all`,
  )
  return row!.all
    ? ''
    : `, as far as ${row!.role} can see; to see those of other roles, grant pg_read_all_stats to ${row!.role}`
}
