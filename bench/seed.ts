import { randomBytes } from 'node:crypto'
import { type Database, open } from '../db/client.ts'
import { migratePostgres } from '../db/migrate.ts'
import { newApiKeyId, newCredential, randomId } from '../server/crypto/credentials.ts'
import { type SealingKey, seal } from '../server/crypto/envelope.ts'
import type { KeyRing } from '../server/crypto/key-ring.ts'
import { hashPassword } from '../server/crypto/password.ts'
import { encodeHeader, signUnder } from '../server/jwt/jwt.ts'
import { formatKid } from '../server/jwt/kid.ts'
import { DATA_KEY_ID, dataKeyContext } from '../server/keys/customer-keys.ts'
import { loadKeyRing } from '../server/keys/master-keys.ts'
import { type Customer, PASSWORD } from './api.ts'
import { ISSUER, MASTER_KEY } from './assay.ts'
import { createDatabase, query } from './database.ts'

/** A customer whose secret the bench generated, so that it can sign the customer's tokens. */
export interface SeededCustomer extends Customer {
  secret: Buffer
  header: string
}

export interface Installation {
  url: string
  customers: SeededCustomer[]
  /** Runs a statement on its database. */
  query(statement: string, params?: unknown[]): Promise<unknown[]>
}

/** Creates a database with `many` customers. Keeps the credentials of the first `known` of them. */
export async function install(postgres: string, many: number, known = many): Promise<Installation> {
  const url = await createDatabase(postgres)
  await migratePostgres(url)
  const db = await open({ url })
  const keyRing = await loadKeyRing(db, [{ id: 'm1', bytes: MASTER_KEY }])
  const customers = await seedCustomers(db, keyRing, many, known)
  await db.close()
  return { url, customers, query: (statement, params) => query(url, statement, params) }
}

/** Number of rows per statement. */
const AT_ONCE = 1_000

/**
 * Creates customers as signup does, but hashes only one password for all of them. It uses large statements, since there may be a
 * million customers. Returns the first `known` of them.
 */
async function seedCustomers(
  db: Database,
  keyRing: KeyRing,
  many: number,
  known: number,
): Promise<SeededCustomer[]> {
  const passwordHash = await hashPassword(PASSWORD)
  const kept: SeededCustomer[] = []
  for (let done = 0; done < many; done += AT_ONCE) {
    const made = Array.from({ length: Math.min(AT_ONCE, many - done) }, () => newCustomer(keyRing))
    await db.query(INSERT, [JSON.stringify(made.map(({ row }) => row)), passwordHash])
    for (const { customer } of made) if (kept.length < known) kept.push(customer)
  }
  await db.query('analyze assay.customers, assay.signing_keys, assay.api_keys')
  return kept
}

const INSERT = `
  with made as materialized (
    select * from jsonb_to_recordset($1::text::jsonb) as made (
      id text, email text, data_key text, access_secret text, refresh_secret text, api_key_id text, digest text)
  ),
  inserted as (
    insert into assay.customers (id, email, password_hash, sealed_data_key, api_keys)
    select id, email, $2, decode(data_key, 'base64'), 1 from made
  ),
  keyed as (
    insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret)
    select id, use, 1, 'current', 'HS512', decode(sealed, 'base64')
    from made, lateral (values ('access', access_secret), ('refresh', refresh_secret)) as key (use, sealed)
  )
  insert into assay.api_keys (id, customer_id, name, scope, digest)
  select api_key_id, id, 'first key', '*', decode(digest, 'base64') from made`

function newCustomer(keyRing: KeyRing) {
  const id = randomId(10)
  const email = `${id}@example.com`
  const apiKeyId = newApiKeyId(keyRing.installationKey, id)
  const credential = newCredential('assay_ak', apiKeyId)
  const dataKey: SealingKey = { id: DATA_KEY_ID, bytes: randomBytes(32) }
  const secret = randomBytes(64)
  const sealed = (purpose: string, bytes: Buffer) =>
    seal(dataKey, bytes, { installation: keyRing.installationId, customer: id, purpose, version: 1 })
  const row = {
    id,
    email,
    data_key: seal(keyRing.current, dataKey.bytes, dataKeyContext(keyRing, id)).toString('base64'),
    access_secret: sealed('access', secret).toString('base64'),
    refresh_secret: sealed('refresh', randomBytes(64)).toString('base64'),
    api_key_id: apiKeyId,
    digest: credential.digest.toString('base64'),
  }
  const kid = formatKid(keyRing.installationKey, { customerId: id, use: 'access', version: 1 })
  const header = encodeHeader({ alg: 'HS512', typ: 'at+jwt', kid })
  return { row, customer: { id, email, apiKey: credential.text, secret, header } }
}

/** In seconds. */
const LIFE = 24 * 3600

/** An access token of a customer, in the form of a session's token. `own`: the customer's own claims. */
function tokenOf({ id, header, secret }: SeededCustomer, own?: Record<string, unknown>): string {
  const iat = Math.floor(Date.now() / 1000)
  const claims = {
    iss: ISSUER,
    sub: `user-${randomId(10)}`,
    aud: ISSUER,
    client_id: id,
    exp: iat + LIFE,
    iat,
    jti: randomId(15),
    ep: '0.0',
    scope: 'read write',
    ...(own && { claims: own }),
    sid: randomId(15),
    gen: 1,
  }
  return signUnder(header, 'HS512', claims, secret)
}

/** Returns `many` tokens, of all the customers in turn. */
export const tokensOf = (customers: SeededCustomer[], many: number, own?: Record<string, unknown>) =>
  Array.from({ length: many }, (_, i) => tokenOf(customers[i % customers.length]!, own))
