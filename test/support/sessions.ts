import type { Replica, World } from './world.ts'

/** The database's view of a session, read directly. Times are in milliseconds. */
export interface StoredSession {
  gen: number
  revoked: boolean
  confirmed: boolean
  expiresAt: number
  endsAt: number
}

export async function storedSession({ admin }: World, id: string): Promise<StoredSession> {
  const [row] = await admin.query<StoredSession>(
    `select gen, revoked_at is not null as revoked, confirmed_at is not null as confirmed,
      (extract(epoch from expires_at) * 1000)::float8 as "expiresAt",
      (extract(epoch from ends_at) * 1000)::float8 as "endsAt"
    from assay.sessions where id = $1`,
    [id],
  )
  if (!row) throw new Error('no such session')
  return row
}

export interface AuditedEvent {
  type: string
  detail: { presented?: number; current?: number; late?: boolean; severity?: string; scope?: string }
}

/** The audit events of one session, oldest first. */
export async function auditOf({ admin }: World, sessionId: string): Promise<AuditedEvent[]> {
  const rows = await admin.query<{ type: string; detail: string | null }>(
    'select type, detail from assay.audit_events where session_id = $1 order by id',
    [sessionId],
  )
  return rows.map(({ type, detail }) => ({ type, detail: JSON.parse(detail ?? '{}') }))
}

/** The number of events of each type in one session's audit. */
export async function countsOf(world: World, sessionId: string): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const { type } of await auditOf(world, sessionId)) counts[type] = (counts[type] ?? 0) + 1
  return counts
}

/** Sets columns of a customer and publishes the change on the change feed, as an operator's request does. */
export async function changeCustomer(
  { admin }: World,
  replicas: Replica[],
  customerId: string,
  assignment: string,
): Promise<void> {
  await admin.query(
    `with changed as (update assay.customers set ${assignment} where id = $1 returning id),
    numbered as (update assay.change_feed set seq = seq + 1 where (select count(*) from changed) > 0 returning seq)
    insert into assay.revocations (seq, kind, customer_id, dead_after)
    select seq, 'customer', $1, assay.now() + interval '1 day' from numbered`,
    [customerId],
  )
  await pollAll(replicas)
}

/** Raises a subject's epoch and publishes it, which revokes all its sessions and tokens. */
export async function moveSubjectEpoch(
  { admin }: World,
  replicas: Replica[],
  { customerId, subject }: { customerId: string; subject: string },
): Promise<void> {
  await admin.query(
    `with moved as (
      insert into assay.subject_epochs (customer_id, subject, epoch, check_after)
      values ($1, $2, nextval('assay.epochs'), assay.now() + interval '2 days')
      on conflict (customer_id, subject) do update set epoch = excluded.epoch returning epoch
    ),
    numbered as (update assay.change_feed set seq = seq + 1 where (select count(*) from moved) > 0 returning seq)
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select seq, 'subject', $1, $2, epoch, assay.now() + interval '1 day' from numbered, moved`,
    [customerId, subject],
  )
  await pollAll(replicas)
}

/** Polls twice: a poll that is already running may have been sent before the change, but the next one was not. */
async function pollAll(replicas: Replica[]) {
  for (const { changeFeed } of replicas) {
    await changeFeed.poll()
    await changeFeed.poll()
  }
}

/**
 * Stops the database's clock at a whole second, so that a test can stay exactly on a boundary regardless of its own
 * duration. Between two polls a replica's estimate of the time advances by at most the half second between them.
 */
export async function stopClock({ admin }: World, replicas: Replica[]) {
  let at = Math.ceil(Date.now() / 1000) * 1000

  async function advance(milliseconds: number) {
    at += milliseconds
    await admin.query(`create or replace function assay.now() returns timestamptz language sql volatile parallel safe
      as 'select timestamptz ''${new Date(at).toISOString()}'''`)
    await pollAll(replicas)
  }

  await advance(0)
  return { advance, now: () => at }
}

export type StoppedClock = Awaited<ReturnType<typeof stopClock>>

/** A seeded, repeatable generator (mulberry32) of numbers from 0 to below 1. */
export function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
