import { statement } from '../statement.ts'
import { type AuditContext, auditedAs } from './audit.ts'
import { AFTER_DEATH, LONGEST_TOKEN, POSITION, type Position, PUBLISHED, publishing } from './change-feed.ts'
import { seconds } from './sessions.ts'

/** Resource servers. A change of one is published like a customer's, by its id: every replica reads it anew. */

/** As one replica needs it, and the position that it was read at. `digest` null: there is none of this id. */
export interface ServerRecord extends Position {
  digest: Uint8Array | null
  previousDigest: Uint8Array | null
  /** NumericDate. */
  previousUntil: number | null
  /** JSON. */
  customers: string | null
  scopes: string | null
}

export const findServerRecord = statement('findServerRecord')<{ id: string }, ServerRecord>(`
  select ${POSITION}, digest, previous_digest as "previousDigest", ${seconds('previous_until')} as "previousUntil",
    customers, scopes
  from (select) as always left join assay.resource_servers on id = :id`)

export interface ServerRow {
  id: string
  name: string | null
  /** JSON. */
  customers: string | null
  scopes: string | null
  createdAt: Date
  previousUntil: Date | null
}

const LISTED = `id, name, customers, scopes, created_at as "createdAt",
  case when previous_until > assay.now() then previous_until end as "previousUntil"`

export const listServers = statement('listServers')<Record<never, never>, ServerRow>(
  `select ${LISTED} from assay.resource_servers order by created_at desc, id desc`,
)

export const findServer = statement('findServer')<{ id: string }, ServerRow>(
  `select ${LISTED} from assay.resource_servers where id = :id`,
)

export interface ServerRotation {
  /** Seconds. */
  overlap: number
  /** Which of two that are good ends at once. */
  end: 'previous' | 'current' | undefined
}

const detail = `json_build_object('server_id', id)::text`
const limits = `json_build_object('server_id', id, 'customers', coalesce(customers, 'all'), 'scopes', coalesce(scopes, 'any'))::text`

/** It widens what is accepted: nothing is published. No row: one was made under the same Idempotency-Key. */
export const insertServer = statement('insertServer')<
  AuditContext & {
    id: string
    name: string | undefined
    digest: Uint8Array
    customers: string | undefined
    scopes: string | undefined
    retryDigest: Uint8Array | undefined
  },
  ServerRow
>(`
  with made as (
    insert into assay.resource_servers (id, name, digest, customers, scopes, created_at, retry_digest)
    values (:id, :name, :digest, :customers, :scopes, assay.now(), :retryDigest)
    on conflict (retry_digest) do nothing
    returning *, null::text as customer_id, created_at as t
  ),
  audited as (${auditedAs(`'server.created'`, 'made', { detail: limits })})
  select ${LISTED} from made`)

/** What was made under an Idempotency-Key. No row: nothing, or it was deleted. */
export const findRetriedServer = statement('findRetriedServer')<
  { retryDigest: Uint8Array },
  ServerRow & { digest: Uint8Array }
>(`select ${LISTED}, digest from assay.resource_servers where retry_digest = :retryDigest`)

const NARROWED = `
  narrowed as (
    select 'customer' as kind, id as customer_id, '' as key, 0 as epoch, t + ${LONGEST_TOKEN} + ${AFTER_DEATH} as dead_after
    from changed
  )`

/** What is null stays, but for the limits, which are set. No row: no such server. */
export const updateServer = statement('updateServer')<
  AuditContext & {
    id: string
    name: string | undefined
    customers: string | undefined
    scopes: string | undefined
  },
  ServerRow & { seq: number }
>(`
  with changed as (
    update assay.resource_servers set name = coalesce(:name, name), customers = :customers, scopes = :scopes
    where id = :id
    returning *, null::text as customer_id, assay.now() as t
  ),
  audited as (${auditedAs(`'server.changed'`, 'changed', { detail: limits })}),
  ${NARROWED},
  ${publishing(['audited'])}
  select ${LISTED}, ${PUBLISHED} from changed`)

/**
 * Another credential. `end: current`: it takes the place of the newest one, which ends, and an older one goes on as it would
 * have; else the newest one goes on for `overlap` seconds, and an older one ends. No row: no such server; an older one still
 * goes on and nobody said that one of them is to end (an overlap of 0 says that both are); or none does, and `end` means it.
 */
export const rotateServer = statement('rotateServer')<
  AuditContext & { id: string; digest: Uint8Array } & ServerRotation,
  ServerRow & { seq: number }
>(`
  with changed as (
    update assay.resource_servers
    set previous_digest = case when :end = 'current' then previous_digest else digest end,
      previous_until = case when :end = 'current' then previous_until
        else assay.now() + make_interval(secs => :overlap::float8) end,
      digest = :digest
    where id = :id and case when previous_until > assay.now() then :end::text is not null or :overlap = 0
      else :end is distinct from 'current' end
    returning *, null::text as customer_id, assay.now() as t
  ),
  audited as (${auditedAs(`'server.rotated'`, 'changed', { detail })}),
  ${NARROWED},
  ${publishing(['audited'])}
  select ${LISTED}, ${PUBLISHED} from changed`)

/** No row: no such server. */
export const deleteServer = statement('deleteServer')<AuditContext & { id: string }, { seq: number }>(`
  with changed as (
    delete from assay.resource_servers where id = :id returning id, null::text as customer_id, assay.now() as t
  ),
  audited as (${auditedAs(`'server.deleted'`, 'changed', { detail })}),
  ${NARROWED},
  ${publishing(['audited'])}
  select ${PUBLISHED} from changed`)
