import { bare } from '../columns.ts'
import { DATABASE_IDENTITY } from '../database-identity.ts'
import { sql } from '../drizzle.ts'
import { prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { installation } from '../schema/installation.ts'
import { type AuditContext, auditInsert } from './audit.ts'

/**
 * Stores which database the installation is served from, and writes an audit event if it was another one before. Returns the
 * previous and the present database if they differ. No row: they don't differ, or none was stored. Only one of several servers
 * that start together gets the row.
 *
 * 1. `former` locks the row only if it has to change.
 * 2. `stored` changes it, unless another start has done so while this one waited for the lock.
 * 3. `moved` skips an installation that was never served before.
 */
export const storeServedDatabase = prepared('storeServedDatabase')<
  AuditContext,
  { former: string; present: string }
>(sql`
  with present as materialized (select ${sql.raw(DATABASE_IDENTITY)} as identity),
  former as materialized (
    select ${installation.servedFrom} as identity from ${installation}
    where ${installation.servedFrom} is distinct from (select identity from present)
    for update
  ),
  stored as (
    update ${installation} set ${bare(installation.servedFrom)} = present.identity
    from present, former
    where ${installation.servedFrom} is distinct from present.identity
    returning former.identity as former, present.identity as present, null::text as customer_id, ${now} as t
  ),
  moved as (select * from stored where former is not null),
  audited as (${auditInsert('installation.moved', 'moved', {
    detail: sql`json_build_object('from', former, 'to', present)::text`,
  })})
  select former, present from moved`)
