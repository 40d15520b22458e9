import postgres from 'postgres'
import { createDatabase, direct } from '../test/support/database.ts'
import { type Link, openLink } from '../test/support/link.ts'
import { freePort } from '../test/support/port.ts'
import { type Running, type Settings, startAssay } from '../test/support/process.ts'
import type { OwnPostgres } from './postgres.ts'
import type { OwnRedis } from './redis.ts'
import { signUp } from './tenant.ts'

/** N, the staleness bound under test, in milliseconds. */
export const N = 1_000

const MOST_STARTS = 3

export interface Replica {
  process: Running
  link: Link
  /** Second host in the replica's URL, for the same database. It closes every connection until a fault needs it. */
  spare: Link
  /** Includes the port, so that a killed replica is restarted where its clients expect it. */
  settings: Settings
}

/** A URL, because it cannot contain a space. */
const STALL = import.meta.resolve('./stall.ts')

const ADMIN_TOKEN = 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5'

/** Real servers on one database, each over a link that can fail. No fault cuts off the first one. */
export interface Stage {
  replicas: [Replica, ...Replica[]]
  /** The database server, if the drill started it. A failover replaces it. */
  server: OwnPostgres | undefined
  /** Shared by all replicas, if they use one. */
  redis: OwnRedis | undefined
  /** Connects to the database directly, not over a link. A failover replaces it. */
  url: string
  apiKey: string
  stop(): Promise<void>
}

export interface StageOptions {
  serverUrl: string
  server?: OwnPostgres
  redis?: OwnRedis | undefined
  replicas: number
  /** Added to the settings of every stage. */
  settings?: Settings
}

export async function makeStage(options: StageOptions): Promise<Stage> {
  const { serverUrl, server, redis } = options
  const { url: named, drop } = await createDatabase(serverUrl)
  const url = direct(named)
  // One after the other, because a busy machine could not start all of them in time.
  const replicas: Stage['replicas'] = [await startReplica(url, options)]
  while (replicas.length < options.replicas) replicas.push(await startReplica(url, options))
  const { apiKey } = await signUp({ replicas })
  async function stop() {
    await Promise.all(replicas.map(({ process }) => process.stop('SIGKILL')))
    for (const { link, spare } of replicas) for (const each of [link, spare]) each.close()
    // A server that the drill started is removed with its databases.
    if (server === undefined) await drop()
  }
  return { replicas, server, redis, url, apiKey, stop }
}

async function startReplica(url: string, { redis, settings: more }: StageOptions): Promise<Replica> {
  const link = await openLink(url)
  const spare = await openLink(url)
  spare.set({ closeNew: true })
  const settings = {
    DATABASE_URL: withHosts(link, spare),
    // The load sends requests as fast as they are answered.
    TOKENS_PER_MINUTE: '1000000000',
    MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
    ADMIN_TOKEN,
    ISSUER: 'http://assay.test',
    MAX_STALENESS: `${N}ms`,
    ...(redis && { REDIS_URL: redis.url }),
    NODE_OPTIONS: `--import ${STALL}`,
    PORT: String(await freePort()),
    ...more,
  }
  return { process: await startAssay(settings), link, spare, settings }
}

/** The first link's URL, with the second link's address as its second host. */
const withHosts = (first: Link, second: Link) =>
  first.url.replace(new URL(first.url).host, `$&,${new URL(second.url).host}`)

/** Restarts an ended replica as a supervisor would: it retries a start that finds no database in time. */
export async function startAgain(replica: Replica): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      replica.process = await startAssay(replica.settings)
      return
    } catch (error) {
      if (tries === MOST_STARTS) throw error
    }
  }
}

/** Queries the database over a new connection, because a permanent one could be hit by a fault. */
export async function ask<Row>(stage: Stage, statement: string): Promise<Row[]> {
  const sql = postgres(stage.url, { max: 1, onnotice: () => {}, connection: { application_name: 'faults' } })
  try {
    return Array.from(await sql.unsafe(statement)) as Row[]
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** Some of a replica's own metrics. */
export interface Reading {
  polls: number
  failures: number
  /** Number of full reloads. */
  reloads: number
  /** The longest event loop delay since the last reading (s). */
  stalled: number
}

export async function readingOf(replica: Replica): Promise<Reading> {
  const text = await metricsOf(replica)
  return {
    polls: countOf(text, 'assay_change_feed_polls_total'),
    failures: countOf(text, 'assay_change_feed_poll_failures_total'),
    reloads: sumOf(text, 'assay_change_feed_reloads_total'),
    stalled: countOf(text, 'nodejs_eventloop_lag_max_seconds'),
  }
}

/** One metric of a replica, by its name with its labels. */
export const countAt = async (replica: Replica, name: string) => countOf(await metricsOf(replica), name)

async function metricsOf({ process }: Replica): Promise<string> {
  const response = await fetch(`${process.url}/metrics`, {
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
  })
  return response.text()
}

/** The sum of a metric over all its labels. */
function sumOf(text: string, name: string): number {
  const lines = text.split('\n').filter(line => line.startsWith(`${name}{`))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

function countOf(text: string, name: string): number {
  const line = text.split('\n').find(line => line.startsWith(`${name} `))
  if (line === undefined) throw new Error(`/metrics has no ${name}`)
  return Number(line.slice(name.length))
}
