import { bare, insertInto, pick } from '../columns.ts'
import { desc, eq, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Params, query, type RowOf } from '../query.ts'
import { now } from '../schema/common.ts'
import { resourceServers } from '../schema/resource-servers.ts'
import { type AuditContext, type AuditType, auditInsert } from './audit.ts'
import { publishedColumns, publishParts } from './change-feed.ts'
import { POSITION, type Position } from './position.ts'
import { seconds } from './sessions.ts'

/**
 * Resource servers. Each change has the same parts: `changed` changes the row, `audited` inserts the event, and `changes`
 * is published like that of a customer.
 */

/** A resource server as replicas cache it, and the position that it was read at. `digest` null: it does not exist. */
export interface ServerRecord
  extends Position,
    Pick<typeof resourceServers.$inferSelect, 'previousDigest' | 'customers' | 'scopes'> {
  digest: Uint8Array | null
  /** NumericDate. */
  previousUntil: number | null
}

export const findServerRecord = prepared('findServerRecord')<{ id: string }, ServerRecord>(sql`
  select ${POSITION}, ${resourceServers.digest}, ${resourceServers.previousDigest} as "previousDigest",
    ${seconds(resourceServers.previousUntil)} as "previousUntil", ${resourceServers.customers}, ${resourceServers.scopes}
  from (select) as always left join ${resourceServers} on ${resourceServers.id} = ${param('id')}`)

const previousUntil = sql<Date | null>`case when ${resourceServers.previousUntil} > ${now}
  then ${resourceServers.previousUntil} end`

const LISTED = {
  ...pick(resourceServers, 'id', 'name', 'customers', 'scopes', 'createdAt'),
  previousUntil,
}

export type ServerRow = RowOf<typeof listServers>

export const listServers = query('listServers', db =>
  db.select(LISTED).from(resourceServers).orderBy(desc(resourceServers.createdAt), desc(resourceServers.id)),
)

export const findServer = query('findServer', (db, { id }: Params<{ id: string }>) =>
  db.select(LISTED).from(resourceServers).where(eq(resourceServers.id, id)),
)

/** Finds the server that was made under an Idempotency-Key. No row: none was made, or it was deleted. */
export const findRetriedServer = query(
  'findRetriedServer',
  (db, { retryDigest }: Params<{ retryDigest: Uint8Array }>) =>
    db
      .select({ ...LISTED, digest: resourceServers.digest })
      .from(resourceServers)
      .where(eq(resourceServers.retryDigest, retryDigest)),
)

/** The columns of a ServerRow, from a part that returned those of the table. */
const rowColumns = sql`id, name, customers, scopes, created_at as "createdAt",
  case when previous_until > ${now} then previous_until end as "previousUntil"`

const detail = sql`json_build_object('server_id', id)::text`
const limits = sql`json_build_object('server_id', id, 'customers', coalesce(customers, 'all'),
  'scopes', coalesce(scopes, 'any'))::text`

interface Settings {
  id: string
  name: string | undefined
  /** JSON. */
  customers: string | undefined
  scopes: string | undefined
}

/** It widens what is accepted: nothing is published. No row: one was made under the same Idempotency-Key. */
export const insertServer = prepared('insertServer')<
  AuditContext & Settings & { digest: Uint8Array; retryDigest: Uint8Array | undefined },
  ServerRow
>(sql`
  with inserted as (
    ${insertInto(resourceServers, 'id', 'name', 'digest', 'customers', 'scopes', 'createdAt', 'retryDigest')}
    values (${param('id')}, ${param('name')}, ${param('digest')}, ${param('customers')}, ${param('scopes')}, ${now},
      ${param('retryDigest')})
    on conflict (${bare(resourceServers.retryDigest)}) do nothing
    returning *, null::text as customer_id, ${resourceServers.createdAt} as t
  ),
  audited as (${auditInsert('server.created', 'inserted', { detail: limits })})
  select ${rowColumns} from inserted`)

/** The parts after `changed`. The change is published by the server's id, so that every replica reloads it. */
const auditAndPublish = (type: AuditType, detail: SQL) => sql`
  audited as (${auditInsert(type, 'changed', { detail })}),
  ${publishParts('customer', 'changed', ['audited'], { customerId: sql`id` })}
  select ${rowColumns}, ${publishedColumns} from changed`

/** Sets the limits, and the name unless it is null. No row: no such server. */
export const updateServer = prepared('updateServer')<
  AuditContext & Settings,
  ServerRow & { seq: number }
>(sql`
  with changed as (
    update ${resourceServers} set ${bare(resourceServers.name)} = coalesce(${param('name')}, ${resourceServers.name}),
      ${bare(resourceServers.customers)} = ${param('customers')}, ${bare(resourceServers.scopes)} = ${param('scopes')}
    where ${resourceServers.id} = ${param('id')}
    returning *, null::text as customer_id, ${now} as t
  ),
  ${auditAndPublish('server.changed', limits)}`)

export interface ServerRotation {
  /** Seconds. */
  overlap: number
  /** If two credentials are good, this one ends at once. */
  end: 'previous' | 'current' | undefined
}

/**
 * Gives the server another credential. With `end: current` the newest one ends, and an older one continues as before.
 * Otherwise the newest one continues for `overlap` seconds, and an older one ends. No row: there is no such server, an
 * older one is still good and `end` doesn't say which of the two ends (with an overlap of 0 both do), or `end` names the
 * current one and no older one is good.
 */
export const rotateServer = prepared('rotateServer')<
  AuditContext & { id: string; digest: Uint8Array } & ServerRotation,
  ServerRow & { seq: number }
>(sql`
  with changed as (
    update ${resourceServers}
    set ${bare(resourceServers.previousDigest)} = case when ${param('end')} = 'current'
        then ${resourceServers.previousDigest} else ${resourceServers.digest} end,
      ${bare(resourceServers.previousUntil)} = case when ${param('end')} = 'current'
        then ${resourceServers.previousUntil} else ${now} + make_interval(secs => ${param('overlap')}::float8) end,
      ${bare(resourceServers.digest)} = ${param('digest')}
    where ${resourceServers.id} = ${param('id')} and case
      when ${resourceServers.previousUntil} > ${now} then ${param('end')}::text is not null or ${param('overlap')} = 0
      else ${param('end')} is distinct from 'current' end
    returning *, null::text as customer_id, ${now} as t
  ),
  ${auditAndPublish('server.rotated', detail)}`)

/** No row: no such server. */
export const deleteServer = prepared('deleteServer')<AuditContext & { id: string }, { seq: number }>(sql`
  with changed as (
    delete from ${resourceServers} where ${resourceServers.id} = ${param('id')}
    returning *, null::text as customer_id, ${now} as t
  ),
  ${auditAndPublish('server.deleted', detail)}`)
