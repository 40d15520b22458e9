import { ADMIN_TOKEN, bearer, type Customer, type Replica, type World } from './world.ts'

/** States written past the API, as the server writes them, and replicas that know them. */

/** Every replica given has polled since this was called: the first poll may be one that was under way before. */
export async function sync(...replicas: Pick<Replica, 'changeFeed'>[]) {
  for (const { changeFeed } of replicas) {
    await changeFeed.poll()
    await changeFeed.poll()
  }
}

/** Disables or enables a customer; every replica given knows it when this returns. */
export async function setState(
  world: World,
  customerId: string,
  state: 'active' | 'disabled',
  replicas: Pick<Replica, 'changeFeed'>[],
) {
  await world.admin.query('update assay.customers set state = $1 where id = $2', [state, customerId])
  await publishCustomer(world, customerId, replicas)
}

/** Says on the change feed that a customer's record changed. */
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

/** Another session of the customer itself. */
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
