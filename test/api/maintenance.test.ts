import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { ADMIN_TOKEN, bearer, makeWorld, type Replica, type World } from '../support/world.ts'

/** One of several replicas runs the background tasks, and the others leave them to it. */

let world: World
let replicas: [Replica, Replica]

beforeEach(async () => {
  const made = await makeWorld()
  onTestFinished(() => made.stop())
  world = made
  replicas = [await made.replica(), await made.replica()]
})

const TASKS = [
  'partitions',
  'audit',
  'audit_order',
  'retire',
  'erased',
  'rotate',
  'dead_rows',
  'revocations',
  'replicas',
  'idempotency_keys',
  'one_time_tokens',
  'clock_baselines',
  'sessions',
  'subject_epochs',
]

/** The number of times that each task of a replica had this outcome. */
async function ended(replica: Replica, outcome: 'ok' | 'skipped' | 'failed'): Promise<number[]> {
  const { text } = await replica.get('/metrics', ADMIN_TOKEN)
  return TASKS.map(task => {
    const found = new RegExp(
      `^assay_maintenance_jobs_total\\{task="${task}",outcome="${outcome}"\\} (\\d+)$`,
      'm',
    )
    return Number(found.exec(text)?.[1] ?? 0)
  })
}

async function removed(replica: Replica, task: string): Promise<number> {
  const { text } = await replica.get('/metrics', ADMIN_TOKEN)
  return Number(
    new RegExp(`^assay_maintenance_removed_total\\{task="${task}"\\} (\\d+)$`, 'm').exec(text)?.[1],
  )
}

const each = (count: number) => TASKS.map(() => count)
const runAtOnce = () => Promise.all(replicas.map(({ maintenance }) => maintenance.run()))

/** The replica that runs the tasks, and the one that doesn't. */
async function roles(): Promise<[Replica, Replica]> {
  const [one, two] = replicas
  return (await ended(one, 'ok'))[0]! > 0 ? [one, two] : [two, one]
}

/** Rows, including sessions, that ended long ago. */
async function leaveDead() {
  const customer = await replicas[0].signUp()
  const { access_token: token } = await customer.session()
  await customer.issue({ refresh: true }, { 'Idempotency-Key': 'k' })
  await replicas[0].postForm('/revoke', { token }, bearer(customer.apiKey))
  await replicas[0].postJson(`/admin/customers/${customer.id}/password-reset`, {}, bearer(ADMIN_TOKEN))
  await world.advance(100 * 86_400_000)
}

const left = async (table: string) => (await world.admin.query(`select 1 from assay.${table}`)).length

test('one replica runs every task and the other skips all of them, in every round, and both count it', async () => {
  await leaveDead()
  for (let round = 1; round <= 3; round++) {
    await runAtOnce()
    const [doer, other] = await roles()
    expect(await ended(doer, 'ok')).toEqual(each(round))
    expect(await ended(other, 'skipped')).toEqual(each(round))
    expect(await ended(doer, 'skipped')).toEqual(each(0))
    expect(await ended(other, 'ok')).toEqual(each(0))
  }
  for (const replica of replicas) expect(await ended(replica, 'failed')).toEqual(each(0))
  for (const table of ['sessions', 'idempotency_keys', 'one_time_tokens']) expect(await left(table)).toBe(0)
})

test('when the replica that runs the tasks stops, the other takes over', async () => {
  await world.maintain()
  const [doer, other] = await roles()
  await doer.stop()
  await other.maintenance.run()
  expect(await ended(other, 'ok')).toEqual(each(1))
})

test('the others wait for a killed replica until its lease would have ended, and no longer', async () => {
  // Its id sorts before all others.
  await world.admin.query(
    `insert into assay.replicas (id, applied, max_staleness, seen_at) values ('', 0, 60000, assay.now())`,
  )
  await runAtOnce()
  for (const replica of replicas) expect(await ended(replica, 'skipped')).toEqual(each(1))
  await world.advance(61_000)
  await runAtOnce()
  const [doer, other] = await roles()
  expect(await ended(doer, 'ok')).toEqual(each(1))
  expect(await ended(other, 'skipped')).toEqual(each(2))
})

test('if both replicas run the tasks, each item is still done once', async () => {
  const customer = await replicas[0].signUp()
  await replicas[0].postJson('/api/secrets/rotate', {}, bearer(customer.accessToken))
  await leaveDead()
  const dead = await left('sessions')
  expect(dead).toBeGreaterThan(1)
  // Neither replica sees the other, whenever they poll.
  await world.admin.query(`create function unseen() returns trigger language plpgsql as
    'begin new.seen_at := ''-infinity''; return new; end'`)
  await world.admin.query(
    'create trigger unseen before insert or update on assay.replicas for each row execute function unseen()',
  )
  await world.admin.query('update assay.replicas set seen_at = seen_at')
  await runAtOnce()
  await world.admin.query('drop function unseen() cascade')
  for (const replica of replicas) {
    expect(await ended(replica, 'ok')).toEqual(each(1))
    expect(await ended(replica, 'failed')).toEqual(each(0))
  }
  const gone = await Promise.all(replicas.map(replica => removed(replica, 'sessions')))
  expect(gone[0]! + gone[1]!).toBe(dead)
  const retired = await world.admin.query(
    `select customer_id, detail from assay.audit_events where type = 'secret.retired'`,
  )
  expect(new Set(retired.map(row => JSON.stringify(row))).size).toBe(retired.length)
  expect(retired.length).toBeGreaterThan(0)
})

test('if the replicas cannot be read, each one runs the tasks, and a failing task does not affect others', async () => {
  await world.admin.query('alter table assay.replicas rename to elsewhere')
  await runAtOnce()
  for (const replica of replicas) {
    expect(await ended(replica, 'failed')).toEqual(TASKS.map(task => (task === 'replicas' ? 1 : 0)))
    expect(await ended(replica, 'ok')).toEqual(TASKS.map(task => (task === 'replicas' ? 0 : 1)))
  }
  await world.admin.query('alter table assay.elsewhere rename to replicas')
})

test('a round checks a thousand refresh keys, and the next round continues behind them', async () => {
  await world.admin.query(
    `insert into assay.customers (id, email, password_hash, sealed_data_key)
    select substr(translate(md5(n::text), '0189', 'ghij'), 1, 16), n::text, '', '' from generate_series(1, 1500) as n`,
  )
  await world.admin.query(
    `insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret, replaced_at)
    select id, 'refresh', 1, 'previous', 'HS512', '', assay.now() - interval '1 day' from assay.customers where sealed_data_key = ''`,
  )
  const [waiting] = await world.admin.query<{ id: string }>(
    `select id from assay.customers where sealed_data_key = ''`,
  )
  await world.admin.query(
    `insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch, issued_at,
      rotated_at, key_version, access_until, expires_at, ends_at)
    select $1, 'aaaaaaaaaaaaaaaaaaaaaaaa', 'user', '', '"x"', 300, 0, 0, t, t, 1, t, t + interval '1 day', t + interval '1 day'
    from assay.now() as t`,
    [waiting!.id],
  )
  const previous = () =>
    world.admin.query<{ id: string }>(
      `select customer_id as id from assay.signing_keys where state = 'previous'`,
    )
  await runAtOnce()
  expect([500, 501]).toContain((await previous()).length)
  await runAtOnce()
  expect(await previous()).toEqual([waiting])
})

/** The statement with its parameters as literals. */
const written = (statement: string, params: readonly unknown[] = []) =>
  statement.replace(/\$(\d+)/g, (_, n) => {
    const value = params[n - 1]
    return value === null || typeof value === 'number' ? String(value) : `'${value}'`
  })

test('dead and expired rows are found by an index, so that any number of live rows costs nothing', async () => {
  const asked: string[] = []
  const query: World['db']['query'] = (statement, params) => {
    asked.push(written(statement, params))
    return world.db.query(statement, params)
  }
  const values: World['db']['values'] = (statement, params) => {
    asked.push(written(statement, params))
    return world.db.values(statement, params)
  }
  const replica = await world.replica({}, { link: { ...world.db, query, values } })
  await world.admin.query(`update assay.replicas set seen_at = '-infinity'`)
  asked.length = 0
  await replica.maintenance.run()
  expect(await ended(replica, 'ok')).toEqual(each(1))
  await world.admin.query(`create function assay.plan_of(statement text) returns setof text language plpgsql
    set enable_seqscan = off as $$ begin return query execute 'explain ' || statement; end $$`)
  const plans: string[] = []
  for (const statement of asked) {
    const lines = await world.admin.query<{ line: string }>('select assay.plan_of($1) as line', [statement])
    plans.push(lines.map(({ line }) => line).join('\n'))
  }
  for (const table of [
    'sessions',
    'revocations',
    'idempotency_keys',
    'one_time_tokens',
    'signing_keys',
    'audit_events',
    'subject_epochs',
  ])
    for (const plan of plans) expect(plan).not.toMatch(new RegExp(`Seq Scan on ${table}`))
  for (const index of [
    'revocations_dead_after',
    'signing_keys_age',
    'subject_epochs_check_after',
    'signing_keys_previous_access',
  ])
    expect(plans.filter(plan => plan.includes(index))).toHaveLength(1)
})
