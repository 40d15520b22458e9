import type { Database } from './client.ts'
import { statement } from './statement.ts'

/**
 * Makes the partitions of this month and the three after it. A month that the default partition already has rows of stays
 * there: no insert may ever fail for want of a partition. Nor may one wait long: the parent is locked only if it can be soon.
 */
export const MAKE_PARTITIONS = `
  do $$
  declare
    month timestamp;
    name text;
  begin
    set local lock_timeout = '1s';
    perform pg_advisory_xact_lock(hashtext('assay.audit_events'));
    for ahead in 0..3 loop
      month := date_trunc('month', assay.now() at time zone 'UTC') + make_interval(months => ahead);
      name := 'audit_events_' || to_char(month, 'YYYY_MM');
      if to_regclass('assay.' || name) is null then
        begin
          execute format('create table assay.%I partition of assay.audit_events for values from (%L) to (%L)',
            name, month at time zone 'UTC', (month + interval '1 month') at time zone 'UTC');
        exception when check_violation or lock_not_available then
          raise warning 'assay: % stays in the default partition', name;
        end;
      end if;
    end loop;
  end $$`

export const makePartitions = (db: Pick<Database, 'query'>) => db.query(MAKE_PARTITIONS)

/** Events of one statement: a batch that a load doesn't feel. */
const BATCH = 5_000

/** The months of which everything is older. */
const findOldPartitions = statement('findOldPartitions')<{ retention: number }, { name: string }>(`
  select c.relname as name
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'assay.audit_events'::regclass and c.relname ~ '^audit_events_\\d{4}_\\d{2}$'
    and to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month'
      < (assay.now() at time zone 'UTC') - make_interval(secs => :retention::float8)
  order by c.relname`)

const deleteOldEvents = statement('deleteOldEvents')<{ retention: number }, never>(`
  delete from assay.audit_events_default where (at, id) in (
    select at, id from assay.audit_events_default
    where at < (select assay.now() - make_interval(secs => :retention::float8)) limit ${BATCH} for update skip locked)
  returning 1`)

/**
 * Drops the months that are older than the audit is kept (seconds), and a batch of what stands in the default partition. A
 * drop waits a second at most for the parent's lock, which keeps every act waiting; the next round tries again. Answers how
 * many months and events went.
 */
export async function dropOldEvents(db: Pick<Database, 'query'>, retention: number): Promise<number> {
  const old = await findOldPartitions(db, { retention })
  for (const { name } of old) await db.query(dropping(name))
  return old.length + (await deleteOldEvents(db, { retention })).length
}

/** The name is one that MAKE_PARTITIONS makes: letters, digits and `_`. */
const dropping = (name: string) => `
  do $$
  begin
    set local lock_timeout = '1s';
    perform pg_advisory_xact_lock(hashtext('assay.audit_events'));
    drop table if exists assay.${name};
  end $$`
