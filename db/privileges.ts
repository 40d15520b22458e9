import type { Connection } from './client.ts'

/**
 * The privileges that serving requires and this role lacks, by object: `insert, update on customers`. Rows of the
 * audit are only deleted, and its order is only written, by the functions of the migration 0002_audit_partitions;
 * partitions are only reached through their parent.
 */
export async function findMissingPrivileges(db: Pick<Connection, 'query'>): Promise<string[]> {
  const rows = await db.query<{ missing: string }>(FIND)
  return rows.map(({ missing }) => missing)
}

const FIND = `
  with needed as (
    select relname::text as object, privilege, case
        -- The role may insert every column but the id, and update those that the erasure of a customer clears.
        when relname = 'audit_events' and privilege in ('insert', 'update') then has_any_column_privilege(oid, privilege)
        else has_table_privilege(oid, privilege)
      end as granted
    from pg_class, unnest(array['select', 'insert', 'update', 'delete']) as privilege
    where relnamespace = 'assay'::regnamespace and relkind in ('r', 'p')
      -- A detached month of the audit is as inaccessible as a partition.
      and not relispartition and relname !~ '^audit_events_\\d{4}_\\d{2}$'
      and (relname not in ('migrations', 'audit_batches', 'audit_sequencer') or privilege = 'select')
      and (relname <> 'audit_events' or privilege <> 'delete')
    union all
    select relname, privilege, has_sequence_privilege(oid, privilege)
    from pg_class, unnest(array['select', 'usage']) as privilege
    where oid in ('assay.epochs'::regclass, 'assay.audit_event_ids'::regclass)
    union all
    select 'function ' || proname, 'execute', has_function_privilege(oid, 'execute')
    from pg_proc where pronamespace = 'assay'::regnamespace
  )
  select string_agg(privilege, ', ') || ' on ' || object as missing
  from needed where not granted group by object order by object`
