import {
  type AsymmetricAlgorithm,
  type CustomerOptions,
  createCustomers,
  issueTokens,
  PASSWORD,
} from './api.ts'
import { type Assay, type Settings, startAssay } from './assay.ts'
import { startRaw } from './contender.ts'
import { createDatabase, vacuum } from './database.ts'
import { once } from './once.ts'
import * as plans from './plans.ts'
import { scratchFolder } from './scratch.ts'
import { type Statement, tap } from './statement.ts'
import type { Tree } from './trees.ts'

/** Number of customers whose tokens are used. */
const HOT = 64
/** Number of customers that a new replica reads in one round. Creating each of them costs a password hash. */
const COLD = 5_000
/** Number of sessions that are refreshed, each by one caller at a time. */
const SESSIONS = 2_048
/** More tokens than the cache holds: the text alone of 140,000 tokens, without their claims, needs more than its 64 MiB. */
const NEW = 180_000
/** A token with an asymmetric signature is cached at its first use, and an entry with its claims has more than 1,300 bytes. */
const NEW_ASYMMETRIC = 60_000

/** Customers of one kind and their tokens. Each part is created when it is first requested. */
export type Customers = ReturnType<typeof customersOf>

function customersOf(server: () => Promise<Assay>, options: CustomerOptions) {
  const hot = once(async () => createCustomers(await server(), HOT, options))
  /** Tokens of sessions, like most tokens in production. */
  const issued = once(async () => issueTokens(await server(), await hot(), plans.MIX, { refresh: true }))
  const tokens = async () => (await issued()).map(each => each.access_token)
  const manyTokens = async (many: number) =>
    (await issueTokens(await server(), await hot(), many)).map(each => each.access_token)
  const newTokens = () => manyTokens(options.signingAlg ? NEW_ASYMMETRIC : NEW)
  return { server, hot, tokens, manyTokens, newTokens }
}

/** One version of the code with its server on Postgres and its customers. Each part is created when it is first requested. */
export type Subject = ReturnType<typeof subjectOf>

export function subjectOf(getTree: () => Promise<Tree>, postgres: string) {
  const url = once(() => createDatabase(postgres))
  const server = once(async () => startAssay(await getTree(), { DATABASE_URL: await url() }))
  const customers = customersOf(server, { password: PASSWORD })
  const { hot } = customers
  const sessions = async () => issueTokens(await server(), await hot(), SESSIONS, { refresh: true })
  /** Customers with one token each. */
  const cold = once(async () => {
    const replica = await another({ WORKERS: '2' })
    const customers = await createCustomers(replica, COLD)
    const made = await issueTokens(replica, customers, COLD)
    await replica.stop()
    await vacuum(await url())
    return customers.map(({ id }, i) => ({ id, token: made[i]!.access_token }))
  })
  /** Starts a server with an empty customer cache. */
  const another = async (settings: Settings = {}) => {
    await server() // The first server has migrated the database.
    return startAssay(await getTree(), { DATABASE_URL: await url(), ...settings })
  }
  /** Starts a process that reads customers from the database as the server does, and does nothing else. */
  const rawSelect = async () => {
    const [first, ...others] = await cold()
    const statement = await statementThatReads(await url(), first!, settings => another(settings))
    return startRaw('servers/raw.ts', {
      DATABASE_URL: await url(),
      STATEMENT: JSON.stringify({ ...statement, customer: first!.id }),
      CUSTOMERS: JSON.stringify(others.map(({ id }) => id)),
    })
  }
  const eddsa = customersOf(server, { signingAlg: 'EdDSA' })
  /**
   * A separate replica for new tokens with asymmetric signatures. They are cached at once and would evict the tokens seen
   * before.
   */
  const apart = once(() => another())
  const asymmetric = (signingAlg: AsymmetricAlgorithm) => customersOf(apart, { signingAlg })
  return { ...customers, sessions, cold, another, rawSelect, eddsa, asymmetric }
}

async function statementThatReads(
  url: string,
  { id, token }: { id: string; token: string },
  start: (settings: Settings) => Promise<Assay>,
): Promise<Statement> {
  const way = await tap(url)
  const assay = await start({ DATABASE_URL: way.url })
  const headers = { Authorization: `Bearer ${token}` }
  const { status } = await fetch(`http://127.0.0.1:${assay.port}/verify`, { headers })
  await assay.stop()
  way.close()
  const [statement, ...more] = way.withParam(id)
  if (status !== 200 || statement === undefined || more.length > 0)
    throw new Error(`/verify (${status}) sent ${more.length + (statement ? 1 : 0)} statements instead of one`)
  return statement
}

/** Uses an embedded database that an earlier start has created. */
export async function startEmbedded(tree: Tree): Promise<Assay> {
  const settings = { DATA_DIR: await scratchFolder() }
  await (await startAssay(tree, settings)).stop()
  return startAssay(tree, settings)
}
