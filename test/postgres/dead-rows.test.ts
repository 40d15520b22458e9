import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { insertRevokedTokens, poll } from '../../db/queries/change-feed.ts'
import { deleteReplica } from '../../db/queries/replicas.ts'
import { control } from '../support/database.ts'
import { ADMIN_TOKEN, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** A transaction is open elsewhere, so Postgres may not remove dead rows. */

const VERSIONS = 60_000
/** Fewer rows than fill them. */
const PAGES = 150

let world: World
let replica: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  replica = await world.replica()
  customer = await replica.signUp()
})
afterAll(() => world.stop())

/** Versions of the counter that an open transaction keeps. */
async function keepVersions() {
  const holder = control(world.url!)
  const line = await holder.reserve()
  await line`begin isolation level repeatable read`
  await line`select txid_current()`
  onTestFinished(async () => {
    line.release()
    await holder.end({ timeout: 0 })
  })
  await world.admin.query(`do $$ declare place tid; begin
    select ctid into place from assay.change_feed;
    for n in 1..${VERSIONS} loop
      update assay.change_feed set seq = seq + 1 where ctid = place returning ctid into place;
    end loop;
  end $$`)
  // Otherwise analyze subtracts them as changes that this connection has not reported yet.
  await world.admin.query('select pg_stat_force_next_flush()')
  // As autovacuum does every minute. It may remove none of them.
  await world.admin.query('vacuum analyze assay.change_feed')
}

interface Plan {
  'Shared Hit Blocks': number
  'Shared Read Blocks': number
  Plans?: Plan[]
}

/** Runs statements, and records the most blocks that any plan node has read. */
function explaining() {
  let most = 0
  const note = ({ Plans = [], ...plan }: Plan) => {
    most = Math.max(most, plan['Shared Hit Blocks'] + plan['Shared Read Blocks'])
    Plans.forEach(note)
  }
  const query = async <Row>(statement: string, params?: readonly unknown[]) => {
    const explained = `explain (analyze, buffers, format json) ${statement}`
    const [row] = await world.db.query<{ 'QUERY PLAN': { Plan: Plan }[] }>(explained, params)
    note(row!['QUERY PLAN'][0]!.Plan)
    return [] as Row[]
  }
  return { query, most: () => most }
}

test('neither a revocation nor a poll reads versions of the counter that a transaction keeps', async () => {
  await keepVersions()
  const db = explaining()
  const act = { customer_id: customer.id, token_id: 'a', subject: 's', expires_at: 2_000_000_000, actor: 'x' }
  await insertRevokedTokens(db, { acts: JSON.stringify([act]) })
  const of = { replica: 'poller', version: '0', applied: VERSIONS, maxStaleness: 5_000, write: true }
  await poll(db, of)
  await deleteReplica(world.db, { replica: 'poller' })
  expect(db.most()).toBeGreaterThan(5)
  expect(db.most()).toBeLessThan(PAGES)
})

test('the replica that runs maintenance counts them', async () => {
  await keepVersions()
  await replica.maintenance.run()
  const { text } = await replica.get('/metrics', ADMIN_TOKEN)
  const dead = Number(/^assay_database_dead_rows (.+)$/m.exec(text)![1])
  expect(dead).toBeGreaterThanOrEqual(VERSIONS)
})
