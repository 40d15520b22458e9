import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { insertRevokedTokens } from '../db/queries/change-feed.ts'
import { fault, polls, type Victims } from './fault.ts'
import { ask, type Stage } from './stage.ts'

/** Faults caused by other writers, which commit late or in another order than they began. */

const WRITERS = 24
/** Revocations per writer. */
const ROUNDS = 4

export const writerFaults = (held: number) => [
  fault({
    name: `transaction open for ${held / 1_000} s`,
    lasts: held,
    inject: hold,
    async heal(stage, held) {
      held.behind = await heldBack(stage)
      held.release()
      held.age = await held.ended
    },
    // A timer may fire a millisecond early. Every poll writes, so the open transaction is behind by more transactions than there
    // were polls.
    felt: (seen, { age, behind }) => age >= held - 1 && polls(seen).every(count => behind > count),
  }),
  fault({
    name: `${WRITERS} writers committing out of order`,
    lasts: 0,
    async inject(stage, victims) {
      const before = await inversions(stage)
      await Promise.all(Array.from({ length: WRITERS }, () => write(stage, victims)))
      return before
    },
    heal() {},
    felt: async (_, before, stage) => (await inversions(stage)) > before + WRITERS,
  }),
]

/** Opens a transaction with an id and a snapshot. `ended` resolves with its age once it is released (ms). */
async function hold(stage: Stage) {
  const sql = postgres(stage.url, { max: 1, connection: { application_name: 'faults' } })
  const [begun, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const ended = sql.begin('isolation level repeatable read', async tx => {
    await tx`select pg_current_xact_id()`
    begun.resolve()
    await released.promise
    const [row] = await tx`select extract(epoch from clock_timestamp() - now())::float8 * 1000 as age`
    return row!.age as number
  })
  await begun.promise
  return { release: released.resolve, ended: ended.finally(() => sql.end()), age: 0, behind: 0 }
}

/** How many transaction ids the snapshot of the open transaction is behind. */
async function heldBack(stage: Stage): Promise<number> {
  const [row] = await ask<{ behind: number }>(
    stage,
    `select age(backend_xmin) as behind from pg_stat_activity
    where datname = current_database() and application_name = 'faults' and state = 'idle in transaction'`,
  )
  return row!.behind
}

/** Begins, takes a transaction id, waits, revokes and commits, so that transaction ids and commits have different orders. */
async function write(stage: Stage, victims: Victims) {
  const sql = postgres(stage.url, { max: 1, fetch_types: false, connection: { application_name: 'faults' } })
  for (let round = 0; round < ROUNDS; round++) {
    const victim = victims.take()
    if (victim) await victims.revoke(victim, ({ access }) => revokeSlowly(sql, access))
  }
  await sql.end()
}

async function revokeSlowly(sql: postgres.Sql, access: string): Promise<number> {
  await sql.begin(async tx => {
    await tx`select pg_current_xact_id()`
    await sleep(Math.random() * 400)
    const query = async <Row>(statement: string, params: readonly unknown[] = []) =>
      Array.from(await tx.unsafe(statement, params as string[])) as Row[]
    await insertRevokedTokens({ query }, { acts: JSON.stringify([actOf(access)]) })
    await sleep(Math.random() * 5)
  })
  return 200
}

function actOf(access: string) {
  const { client_id, jti, sub, exp } = JSON.parse(Buffer.from(access.split('.')[1]!, 'base64url').toString())
  return { customer_id: client_id, token_id: jti, subject: sub, expires_at: exp, actor: 'operator' }
}

/** Number of consecutive rows whose transactions began in the reverse order. */
async function inversions(stage: Stage): Promise<number> {
  const [row] = await ask<{ count: number }>(
    stage,
    `select count(*)::int from (
      select xmin::text::bigint as id, lag(xmin::text::bigint) over (order by seq) as earlier from assay.revocations
    ) as pairs where id < earlier`,
  )
  return row!.count
}
