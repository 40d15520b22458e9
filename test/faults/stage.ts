import { randomInt } from 'node:crypto'
import postgres from 'postgres'
import { createDatabase } from '../support/database.ts'
import { type Link, openLink } from '../support/link.ts'
import { type Running, startAssay } from '../support/process.ts'
import type { OwnPostgres } from './postgres.ts'

/** N, in milliseconds: the bound under test. */
export const N = 1_000

export interface Replica {
  process: Running
  link: Link
}

/** As a URL, in which no space can be. */
const STALL = import.meta.resolve('./stall.ts')

const ADMIN_TOKEN = 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5'

/** Real servers on one database, each over a link that can fail. The first is never the one that is cut off. */
export interface Stage {
  replicas: [Replica, ...Replica[]]
  /** The database's server, where it is our own; after a failover another one. */
  server: OwnPostgres | undefined
  /** The database, past every link; after a failover on another server. */
  url: string
  apiKey: string
  stop(): Promise<void>
}

export interface StageOptions {
  serverUrl: string
  server?: OwnPostgres
  replicas: number
}

export async function makeStage({ serverUrl, server, replicas: count }: StageOptions): Promise<Stage> {
  const { url, drop } = await createDatabase(serverUrl)
  const replicas: Stage['replicas'] = [await startReplica(url)]
  while (replicas.length < count) replicas.push(await startReplica(url))
  const apiKey = await signUp(replicas[0])
  async function stop() {
    await Promise.all(replicas.map(({ process }) => process.stop('SIGKILL')))
    for (const { link } of replicas) link.close()
    // What is on a server of our own ends with it.
    if (server === undefined) await drop()
  }
  return { replicas, server, url, apiKey, stop }
}

async function startReplica(url: string): Promise<Replica> {
  const link = await openLink(url)
  const process = await startAssay({
    DATABASE_URL: link.url,
    MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
    ADMIN_TOKEN,
    ISSUER: 'http://assay.test',
    MAX_STALENESS: `${N}ms`,
    NODE_OPTIONS: `--import ${STALL}`,
  })
  return { process, link }
}

async function signUp({ process }: Replica): Promise<string> {
  const email = `${randomInt(2 ** 40)}@example.com`
  const response = await fetch(`${process.url}/api/auth/signup`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password: 'a long password' }),
  })
  return ((await response.json()) as { api_key: string }).api_key
}

/** Asks the database itself, over a connection for this question alone: any that stayed could be a fault's victim. */
export async function ask<Row>(stage: Stage, statement: string): Promise<Row[]> {
  const sql = postgres(stage.url, { max: 1, onnotice: () => {}, connection: { application_name: 'faults' } })
  try {
    return Array.from(await sql.unsafe(statement)) as Row[]
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** Some of a replica's own counts. */
export interface Reading {
  polls: number
  failures: number
  /** Times that it read everything anew. */
  reloads: number
  /** The longest that its event loop stood still since the last reading (s). */
  stalled: number
}

export async function readingOf({ process }: Replica): Promise<Reading> {
  const response = await fetch(`${process.url}/metrics`, {
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
  })
  const text = await response.text()
  return {
    polls: countOf(text, 'assay_bus_polls_total'),
    failures: countOf(text, 'assay_bus_poll_failures_total'),
    reloads: countOf(text, 'assay_bus_reloads_total'),
    stalled: countOf(text, 'nodejs_eventloop_lag_max_seconds'),
  }
}

function countOf(text: string, name: string): number {
  const value = new RegExp(`^${name} (.+)$`, 'm').exec(text)?.[1]
  if (value === undefined) throw new Error(`/metrics does not tell ${name}`)
  return Number(value)
}
