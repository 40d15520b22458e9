import { bare, insertInto, pick } from '../columns.ts'
import { desc, eq, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Params, query, type RowOf } from '../query.ts'
import { now } from '../schema/common.ts'
import { services } from '../schema/services.ts'
import { type AuditContext, type AuditType, auditInsert } from './audit.ts'
import { publishedColumns, publishParts } from './change-feed.ts'
import { POSITION, type Position } from './position.ts'
import { seconds } from './sessions.ts'

/**
 * Services. Each change has the same parts: `changed` changes the row, `audited` inserts the event, and `changes`
 * is published like that of a customer.
 */

/** A service as replicas cache it, and the position that it was read at. `digest` null: it does not exist. */
export interface ServiceRecord
  extends Position,
    Pick<typeof services.$inferSelect, 'previousDigest' | 'customers' | 'scopes'> {
  digest: Uint8Array | null
  name: string | null
  /** JSON. */
  may: string | null
  /** NumericDate. */
  previousUntil: number | null
}

export const findServiceRecord = prepared('findServiceRecord')<{ id: string }, ServiceRecord>(sql`
  select ${POSITION}, ${services.digest}, ${services.previousDigest} as "previousDigest",
    ${seconds(services.previousUntil)} as "previousUntil", ${services.name}, ${services.may}, ${services.customers},
    ${services.scopes}
  from (select) as always left join ${services} on ${services.id} = ${param('id')}`)

const previousUntil = sql<Date | null>`case when ${services.previousUntil} > ${now}
  then ${services.previousUntil} end`

const LISTED = {
  ...pick(services, 'id', 'name', 'may', 'customers', 'scopes', 'createdAt', 'lastUsedAt'),
  previousUntil,
}

export type ServiceRow = RowOf<typeof listServices>

export const listServices = query('listServices', db =>
  db.select(LISTED).from(services).orderBy(desc(services.createdAt), desc(services.id)),
)

export const findService = query('findService', (db, { id }: Params<{ id: string }>) =>
  db.select(LISTED).from(services).where(eq(services.id, id)),
)

/** Finds the service that was created under an Idempotency-Key. No row: it was not created, or it was deleted. */
export const findRetriedService = query(
  'findRetriedService',
  (db, { retryDigest }: Params<{ retryDigest: Uint8Array }>) =>
    db
      .select({ ...LISTED, digest: services.digest })
      .from(services)
      .where(eq(services.retryDigest, retryDigest)),
)

/** The columns of a ServiceRow, from a part that returned those of the table. */
const rowColumns = sql`id, name, may, customers, scopes, created_at as "createdAt", last_used_at as "lastUsedAt",
  case when previous_until > ${now} then previous_until end as "previousUntil"`

const detail = sql`json_build_object('service_id', id, 'name', name)::text`
const permissions = sql`json_build_object('service_id', id, 'name', name, 'may', may::json, 'customers', coalesce(customers, 'all'),
  'scopes', coalesce(scopes, 'any'))::text`

interface Permissions {
  id: string
  /** JSON. */
  may: string
  customers: string | undefined
  scopes: string | undefined
}

/**
 * Creates a service. Nothing stops being accepted, so nothing is published. No row: another service has this name, or one was
 * created under the same Idempotency-Key.
 */
export const insertService = prepared('insertService')<
  AuditContext & Permissions & { name: string; digest: Uint8Array; retryDigest: Uint8Array | undefined },
  ServiceRow
>(sql`
  with inserted as (
    ${insertInto(services, 'id', 'name', 'digest', 'may', 'customers', 'scopes', 'createdAt', 'retryDigest')}
    values (${param('id')}, ${param('name')}, ${param('digest')}, ${param('may')}, ${param('customers')},
      ${param('scopes')}, ${now}, ${param('retryDigest')})
    on conflict do nothing
    returning *, null::text as customer_id, ${services.createdAt} as t
  ),
  audited as (${auditInsert('service.created', 'inserted', { detail: permissions })})
  select ${rowColumns} from inserted`)

/** The parts after `changed`. The change is published by the service's id, so that every replica reloads it. */
const auditAndPublish = (type: AuditType, detail: SQL) => sql`
  audited as (${auditInsert(type, 'changed', { detail })}),
  ${publishParts('customer', 'changed', ['audited'], { customerId: sql`id` })}
  select ${rowColumns}, ${publishedColumns} from changed`

/** Replaces the rights and limits. No row: no such service. */
export const updateService = prepared('updateService')<
  AuditContext & Permissions,
  ServiceRow & { seq: number }
>(sql`
  with changed as (
    update ${services} set ${bare(services.may)} = ${param('may')},
      ${bare(services.customers)} = ${param('customers')}, ${bare(services.scopes)} = ${param('scopes')}
    where ${services.id} = ${param('id')}
    returning *, null::text as customer_id, ${now} as t
  ),
  ${auditAndPublish('service.changed', permissions)}`)

export interface ServiceRotation {
  /** Seconds. */
  overlap: number
  /** If two credentials are valid, this one ends at once. */
  end: 'previous' | 'current' | undefined
}

/**
 * Gives the service another credential. With `end: current` the newest one ends, and an older one continues as before. Otherwise
 * the newest one continues for `overlap` seconds, and an older one ends. No row: there is no such service, an older one is still
 * valid and `end` doesn't say which of the two ends (with an overlap of 0 both do), or `end` names the current one and no older
 * one is valid.
 */
export const rotateService = prepared('rotateService')<
  AuditContext & { id: string; digest: Uint8Array } & ServiceRotation,
  ServiceRow & { seq: number }
>(sql`
  with changed as (
    update ${services}
    set ${bare(services.previousDigest)} = case when ${param('end')} = 'current'
        then ${services.previousDigest} else ${services.digest} end,
      ${bare(services.previousUntil)} = case when ${param('end')} = 'current'
        then ${services.previousUntil} else ${now} + make_interval(secs => ${param('overlap')}::float8) end,
      ${bare(services.digest)} = ${param('digest')}
    where ${services.id} = ${param('id')} and case
      when ${services.previousUntil} > ${now} then ${param('end')}::text is not null or ${param('overlap')} = 0
      else ${param('end')} is distinct from 'current' end
    returning *, null::text as customer_id, ${now} as t
  ),
  ${auditAndPublish('service.rotated', detail)}`)

/** No row: no such service. */
export const deleteService = prepared('deleteService')<AuditContext & { id: string }, { seq: number }>(sql`
  with changed as (
    delete from ${services} where ${services.id} = ${param('id')}
    returning *, null::text as customer_id, ${now} as t
  ),
  ${auditAndPublish('service.deleted', detail)}`)

/** Records that services were used, in batches. A row that another replica is updating is skipped. */
export const touchServices = prepared('touchServices')<{ ids: string }, never>(sql`
  with due as (
    select ${services.id} from ${services}
    where ${services.id} in (select jsonb_array_elements_text(${param('ids')}::text::jsonb))
      and (${services.lastUsedAt} is null or ${services.lastUsedAt} < ${now} - interval '1 minute')
    for update skip locked
  )
  update ${services} set ${bare(services.lastUsedAt)} = ${now} from due where ${services.id} = due.id`)
