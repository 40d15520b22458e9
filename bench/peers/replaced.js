/**
 * The design that Assay replaces, implemented as well as possible: jsonwebtoken and a secret per customer in Postgres. Each
 * verification reads the customer that the token names, with one prepared statement by primary key over ten open connections.
 * The HTTP stack is the same as Assay's, so the comparison measures only the design.
 */
import './production.js'

import { randomBytes } from 'node:crypto'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import jwt from 'jsonwebtoken'
import pg from 'pg'
import { announce, DAY, listen, TOKENS, withBearer } from './peer.js'

const CONNECTIONS = 10
const ISSUER = 'https://auth.example'

const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: CONNECTIONS,
  idleTimeoutMillis: 0,
})

async function customerOf(clientId) {
  const { rows } = await pool.query({
    name: 'customer',
    text: 'select secret, state from replaced.customers where id = $1',
    values: [clientId],
  })
  return rows[0]
}

async function verify(token) {
  const customer = await customerOf(jwt.decode(token)?.client_id)
  if (customer?.state !== 'active') return undefined
  try {
    return jwt.verify(token, customer.secret, { algorithms: ['HS512'], issuer: ISSUER })
  } catch {
    return undefined
  }
}

const empty = (status, headers) =>
  new Response(null, { status, headers: { ...headers, 'Content-Length': '0' } })

const app = new Hono().get('/verify', async c => {
  const claims = await verify(c.req.header('authorization')?.slice('Bearer '.length))
  if (claims === undefined) return empty(401, { 'WWW-Authenticate': 'Bearer error="invalid_token"' })
  return empty(200, { 'X-Auth-Subject': claims.sub, 'X-Auth-Customer': claims.client_id })
})

/** Removes what an earlier, killed run has left behind. */
const SCHEMA = `
  drop schema if exists replaced cascade;
  create schema replaced;
  create table replaced.customers (id text primary key, secret bytea not null, state text not null)`

async function createCustomers() {
  const customers = Array.from({ length: TOKENS }, (_, i) => ({
    id: `customer-${i}`,
    secret: randomBytes(64),
  }))
  await pool.query(SCHEMA)
  await pool.query(
    "insert into replaced.customers select id, secret, 'active' from unnest($1::text[], $2::bytea[]) as of (id, secret)",
    [customers.map(({ id }) => id), customers.map(({ secret }) => secret)],
  )
  await pool.query('analyze replaced.customers')
  return customers
}

const tokenOf = ({ id, secret }, i) =>
  jwt.sign({ client_id: id, jti: crypto.randomUUID() }, secret, {
    algorithm: 'HS512',
    expiresIn: DAY,
    issuer: ISSUER,
    subject: `user-${i}`,
  })

process.once('SIGTERM', async () => {
  await pool.query('drop schema if exists replaced cascade')
  process.exit()
})

const customers = await createCustomers()
// Opens every connection and prepares the statement on each.
await Promise.all(Array.from({ length: CONNECTIONS }, () => customerOf('customer-0')))

announce(await listen(getRequestListener(app.fetch)), {
  verify: {
    requests: customers.map((customer, i) => withBearer('/verify', tokenOf(customer, i))),
    status: 200,
    contains: '',
  },
})
