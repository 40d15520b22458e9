import { bare } from '../columns.ts'
import { type AnyPgColumn, type AnyPgTable, and, eq, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Params, query } from '../query.ts'
import { apiKeys } from '../schema/api-keys.ts'
import { auditEvents } from '../schema/audit-events.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { idempotencyKeys } from '../schema/idempotency-keys.ts'
import { revocations } from '../schema/revocations.ts'
import { sessions } from '../schema/sessions.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { type AuditContext, auditInsert, isRare } from './audit.ts'
import { publishedColumns, publishParts } from './change-feed.ts'

/** Erasing a customer removes everything of it but its audit events, which keep ids and nothing personal. */

/** Finds the erasure of a customer. No row: it was not erased. */
export const findErasure = query('findErasure', (db, { customerId }: Params<{ customerId: string }>) =>
  db
    .select({ at: auditEvents.at })
    .from(auditEvents)
    .where(and(eq(auditEvents.customerId, customerId), eq(auditEvents.type, 'customer.erased')))
    .limit(1),
)

export interface ErasureReport {
  erasedAt: Date
  sessions: number
  apiKeys: number
  secrets: number
  /** The number of audit events that lost their personal data. */
  auditEvents: number
  seq: number
}

/** Clears the subjects and origins of the events of the part `of` (customer_id); ids, types and times stay. */
const scrubEvents = (of: string, since = sql``) => sql`
  update ${auditEvents} set ${bare(auditEvents.subject)} = null, ${bare(auditEvents.ip)} = null,
    ${bare(auditEvents.userAgent)} = null
  from ${sql.raw(of)} as c
  where ${auditEvents.customerId} = c.customer_id and ${auditEvents.type} <> 'customer.erased'
    and (${auditEvents.subject} is not null or ${auditEvents.ip} is not null or ${auditEvents.userAgent} is not null)
    ${since}
  returning 1`

/** Deletes the rows of the customer that the part `of` (customer_id) names. */
const deleteRows = (table: AnyPgTable & { customerId: AnyPgColumn }, of: string): SQL =>
  sql`delete from ${table} using ${sql.raw(of)} as c where ${table.customerId} = c.customer_id returning 1`

/**
 * Deletes the revocations of the customer's subjects, sessions and tokens: a subject may be an email address. No
 * replica can miss one: a replica that polls after this commit gets the customer's own change instead, under a higher
 * number, and refuses every token of the deleted customer.
 */
const deleteRevocations = (of: string) => sql`
  delete from ${revocations} using ${sql.raw(of)} as c
  where ${revocations.customerId} = c.customer_id and ${revocations.kind} <> 'customer' returning 1`

/**
 * Erases a customer. No row: no such customer.
 *
 * 1. `changed` deletes the customer, and the parts up to `scrubbed` its rows and personal data.
 * 2. `counted` counts the deleted rows, for the report and the audit.
 * 3. `audited` and `changes` audit and publish it, once all other locks are held: the change feed's counter stays locked
 *    for the commit alone.
 */
export const eraseCustomer = prepared('eraseCustomer')<
  AuditContext & { customerId: string },
  ErasureReport
>(sql`
  with changed as (
    delete from ${customers} where ${customers.id} = ${param('customerId')}
    returning ${customers.id} as customer_id, ${now} as t
  ),
  ended as (${deleteRows(sessions, 'changed')}),
  keys as (${deleteRows(apiKeys, 'changed')}),
  versions as (${deleteRows(signingKeys, 'changed')}),
  forgotten as (${deleteRows(idempotencyKeys, 'changed')}),
  raised as (${deleteRows(subjectEpochs, 'changed')}),
  revoked as (${deleteRevocations('changed')}),
  scrubbed as (${scrubEvents('changed')}),
  counted as materialized (
    select changed.*,
      (select count(*) from ended) as sessions,
      (select count(*) from keys) as api_keys,
      (select count(*) from versions) as secrets,
      (select count(*) from scrubbed) as audit_events
    from changed
  ),
  audited as (${auditInsert('customer.erased', 'counted', {
    detail: sql`json_build_object('sessions', sessions, 'api_keys', api_keys, 'secrets', secrets,
      'audit_events', audit_events)::text`,
  })}),
  ${publishParts('customer', 'changed', ['audited', 'forgotten', 'raised', 'revoked'])}
  select ${publishedColumns}, t as "erasedAt", sessions, api_keys as "apiKeys", secrets, audit_events as "auditEvents"
  from counted`)

/** Finds the customers that were erased within the last hour. */
export const findErased = query('findErased', db =>
  db
    .select({ customerId: sql<string>`${auditEvents.customerId}`, at: sql<Date>`max(${auditEvents.at})` })
    .from(auditEvents)
    .where(
      and(
        eq(auditEvents.type, 'customer.erased'),
        isRare,
        // The subquery makes the time a constant. Otherwise the index can't be used, because assay.now() is volatile.
        sql`${auditEvents.at} > (select ${now} - interval '1 hour')`,
      ),
    )
    .groupBy(auditEvents.customerId),
)

/**
 * Deletes rows of requests that were running when their customer was erased: sessions, epochs, revocations, and the
 * personal data in audit events.
 */
export const sweepErased = prepared('sweepErased')<{ customerId: string; at: Date }, never>(sql`
  with erased as materialized (
    select ${param('customerId')}::text as customer_id, ${param('at')}::timestamptz as erased_at
  ),
  ended as (${deleteRows(sessions, 'erased')}),
  forgotten as (${deleteRows(idempotencyKeys, 'erased')}),
  raised as (${deleteRows(subjectEpochs, 'erased')}),
  revoked as (${deleteRevocations('erased')})
  ${scrubEvents('erased', sql`and ${auditEvents.at} > c.erased_at - interval '1 minute'`)}`)
