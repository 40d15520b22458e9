import type { Database } from '../../db/client.ts'

/** How the database fails: the statement is refused, or its backend ends. */
export type How = 'raise' | 'kill'

const DO: Record<How, string> = {
  raise: `raise exception 'injected'`,
  kill: 'perform pg_terminate_backend(pg_backend_pid())',
}

/** Tables that are written later in the background: those writes are not part of the act. */
const NOTES = `coalesce(current_query(), '') ~ '/[*] (touchApiKeys|confirmSessions?) [*]/'`

/** Triggers on all tables that acts write to, so that a test can make the database fail at any row of an act or at its COMMIT. */
export async function failing(db: Pick<Database, 'query'>) {
  await db.query('create sequence public.written')
  await db.query(trigger('at_row', ''))
  await db.query(trigger('at_commit', ''))
  const tables = await db.query<{ name: string }>(
    `select relname as name from pg_class
    where relnamespace = 'assay'::regnamespace and relkind = 'r' and relname not in ('replicas', 'migrations')`,
  )
  for (const { name } of tables) {
    await db.query(`create trigger at_row before insert or update or delete on assay.${name}
      for each row execute function public.at_row()`)
    await db.query(`create constraint trigger at_commit after insert or update or delete on assay.${name}
      deferrable initially deferred for each row execute function public.at_commit()`)
  }

  return {
    /** Fails at the nth row written from now on. */
    atRow: (nth: number) => async (how: How) => {
      await db.query(`select setval('public.written', 1, false)`)
      await db.query(trigger('at_row', `if nextval('public.written') = ${nth} then ${DO[how]}; end if;`))
    },
    atCommit: (how: How) => db.query(trigger('at_commit', `${DO[how]};`)),
    async never() {
      await db.query(trigger('at_row', ''))
      await db.query(trigger('at_commit', ''))
    },
  }
}

const trigger = (name: string, body: string) => `
  create or replace function public.${name}() returns trigger language plpgsql security definer as $$
  begin
    if not ${NOTES} then
      ${body || 'null;'}
    end if;
    return coalesce(new, old);
  end $$`
