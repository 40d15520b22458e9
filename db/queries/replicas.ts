import { asc, eq, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Params, query, type RowOf } from '../query.ts'
import { now } from '../schema/common.ts'
import { replicas } from '../schema/replicas.ts'
import { COUNTER } from './position.ts'

/** Deletes a replica that stops, so that no other waits for it. */
export const deleteReplica = query('deleteReplica', (db, { replica }: Params<{ replica: string }>) =>
  db.delete(replicas).where(eq(replicas.id, replica)),
)

const maxStaleness = sql`make_interval(secs => ${replicas.maxStaleness} / 1000.0)`

/**
 * Whether this is the first of the live replicas, by its id. When a replica starts or stops, the answer may be wrong for a
 * moment: then two replicas are the first, or none is.
 */
export const isFirst = prepared('isFirst')<{ replica: string }, { first: boolean }>(sql`
  select not exists (
    select from ${replicas}
    where ${replicas.id} < ${param('replica')} and ${replicas.seenAt} > ${now} - ${maxStaleness}) as first`)

export type ReplicaRow = RowOf<typeof listReplicas>

/** Lists the replicas that polled within a minute, or within their own maximum staleness. */
export const listReplicas = query('listReplicas', db =>
  db
    .select({
      id: replicas.id,
      version: replicas.version,
      /** The number of the change feed up to which it knows every change, and how many it lacks. */
      applied: replicas.applied,
      behind: sql<number>`${COUNTER} - ${replicas.applied}`,
      /** Milliseconds since its last poll, and how long it may go without one. */
      age: sql<number>`(extract(epoch from ${now} - ${replicas.seenAt}) * 1000)::float8`,
      maxStaleness: replicas.maxStaleness,
    })
    .from(replicas)
    .where(sql`${replicas.seenAt} > ${now} - greatest(interval '1 minute', ${maxStaleness})`)
    .orderBy(asc(replicas.id)),
)
