import type { Connection } from '../client.ts'

/** Rows of one statement: a batch that a load doesn't feel. */
const BATCH_ROWS = 5_000

const deleting = (table: string, key: string, dead: string) => `
  delete from assay.${table} where (${key}) in (
    select ${key} from assay.${table} where ${dead} limit ${BATCH_ROWS} for update skip locked)
  returning 1`

/** Asked once, in a query of its own: a condition with a function of no fixed value in it can't be looked for in an index. */
const ago = (margin: string) => `(select assay.now() - interval '${margin}')`

/**
 * What no answer can rest on any more, each with its margin: revocations an hour after they stopped mattering, because a
 * database clock that is set back makes them matter again; sessions a day after their end in all.
 */
export const DEAD = {
  revocations: deleting('revocations', 'seq', `dead_after < ${ago('1 hour')}`),
  replicas: deleting('replicas', 'id', `seen_at < ${ago('1 day')}`),
  idempotency_keys: deleting('idempotency_keys', 'customer_id, key_digest', `expires_at < ${ago('0')}`),
  sessions: deleting('sessions', 'customer_id, id', `ends_at < ${ago('1 day')}`),
}

/** Answers how many rows went; as many as a batch has means that there may be more. */
export const deleteDead = async (db: Pick<Connection, 'query'>, table: keyof typeof DEAD) =>
  (await db.query(DEAD[table])).length

export const isWhole = (deleted: number) => deleted < BATCH_ROWS
