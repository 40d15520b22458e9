import type { World } from './world.ts'

/** Digests by table of all stored state except the audit, the replicas' own rows and rows that are written later. */
export async function everything({ admin }: World): Promise<Record<string, string>> {
  const tables = await admin.query<{ name: string }>(
    `select table_name as name from information_schema.tables
    where table_schema = 'assay' and table_name not like 'audit_events%' and table_name <> 'replicas'`,
  )
  const digest = (name: string) => `
    select '${name}' as name, md5(coalesce(string_agg(row::text, '|' order by row::text), '')) as digest
    from (select to_jsonb(t) - 'last_used_at' - 'confirmed_at' as row from assay.${name} t) rows`
  const rows = await admin.query<{ name: string; digest: string }>(
    tables.map(({ name }) => digest(name)).join(' union all '),
  )
  return Object.fromEntries(rows.map(({ name, digest }) => [name, digest]))
}

/** The newest audit id. */
export async function lastEvent({ admin }: World): Promise<number> {
  const [row] = await admin.query<{ id: number }>('select coalesce(max(id), 0) as id from assay.audit_events')
  return row!.id
}

/** The events after that id, oldest first. */
export const eventsAfter = ({ admin }: World, id: number) =>
  admin.query<{ type: string; detail: string | null }>(
    `select type, customer_id, actor, subject, session_id, token_id, ip, user_agent, detail
    from assay.audit_events where id > $1 order by id`,
    [id],
  )

/** Whether the counter equals the position of the last revocation. */
export async function isBusWhole({ admin }: World): Promise<boolean> {
  const [row] = await admin.query<{ whole: boolean }>(
    'select seq = coalesce((select max(seq) from assay.revocations), 0) as whole from assay.change_feed',
  )
  return row!.whole
}
