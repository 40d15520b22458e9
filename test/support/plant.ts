import { ADMIN_TOKEN, bearer, type Customer, type Replica, type World } from './world.ts'

/** Writes states directly to the database, as the server would, and waits until replicas have read them. */

/** Resolves when each replica has finished a poll sent after this call: the first poll may already have been running. */
export async function sync(...replicas: Pick<Replica, 'changeFeed'>[]) {
  for (const { changeFeed } of replicas) {
    await changeFeed.poll()
    await changeFeed.poll()
  }
}

/** Disables or enables a customer; resolves when the given replicas have read it. */
export async function setState(
  world: World,
  customerId: string,
  state: 'active' | 'disabled',
  replicas: Pick<Replica, 'changeFeed'>[],
) {
  await world.admin.query('update assay.customers set state = $1 where id = $2', [state, customerId])
  await publishCustomer(world, customerId, replicas)
}

/** Publishes a change of a customer's record on the change feed. */
export async function publishCustomer(
  world: World,
  customerId: string,
  replicas: Pick<Replica, 'changeFeed'>[] = [],
) {
  await world.admin.query(
    `with numbered as (update assay.change_feed set seq = seq + 1 returning seq)
    insert into assay.revocations (seq, kind, customer_id, dead_after)
    select seq, 'customer', $1, assay.now() + interval '24 hours 1 minute' from numbered`,
    [customerId],
  )
  await sync(...replicas)
}

/** Adds another session of the customer itself. */
export async function logIn(assay: Replica, { email, password }: Pick<Customer, 'email' | 'password'>) {
  const { status, json } = await assay.postJson('/api/auth/login', { email, password })
  if (status !== 200) throw new Error(`login answered ${status}`)
  return json as { access_token: string; refresh_token: string; session_id: string }
}

export type TokenPath = 'password-reset' | 'email-verification' | 'email-change'

/** Creates a one-time token as an operator does. */
export async function oneTimeToken(assay: Replica, customerId: string, path: TokenPath, body: object = {}) {
  const { status, json } = await assay.postJson(
    `/admin/customers/${customerId}/${path}`,
    body,
    bearer(ADMIN_TOKEN),
  )
  if (status !== 201) throw new Error(`${path} answered ${status}`)
  return json.token as string
}

/** Stops the database's clock at `at`, until world.advance lets it go on; the replicas given know. */
export async function stopClock(world: World, at: Date, replicas: Pick<Replica, 'changeFeed'>[]) {
  await world.admin.query(`create or replace function assay.now() returns timestamptz language sql volatile parallel safe
    as 'select timestamptz ''${at.toISOString()}'''`)
  await sync(...replicas)
}
