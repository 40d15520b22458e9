import { statement } from '../statement.ts'

/** One that leaves is waited for by nobody. */
export const deleteReplica = statement('deleteReplica')<{ replica: string }, never>(
  'delete from assay.replicas where id = :replica',
)

/**
 * Whether this is the first, by its name, of the replicas that live. Who is may be doubted for a moment, as one comes or
 * goes: then two are, or none.
 */
export const isFirst = statement('isFirst')<{ replica: string }, { first: boolean }>(`
  select not exists (
    select from assay.replicas r
    where r.id < :replica and r.seen_at > assay.now() - make_interval(secs => r.max_staleness / 1000.0)) as first`)

export interface ReplicaRow {
  id: string
  version: string
  /** The number of the change feed up to which it knows every change, and how many it lacks. */
  applied: number
  behind: number
  /** Milliseconds since its last poll, and how long it may go without one. */
  age: number
  maxStaleness: number
}

/** Those that polled within a minute, or within as long as they may go without. */
export const listReplicas = statement('listReplicas')<Record<never, never>, ReplicaRow>(`
  select id, version, applied, (select seq from assay.change_feed) - applied as behind, max_staleness as "maxStaleness",
    (extract(epoch from assay.now() - seen_at) * 1000)::float8 as age
  from assay.replicas
  where seen_at > assay.now() - greatest(interval '1 minute', make_interval(secs => max_staleness / 1000.0))
  order by id`)
