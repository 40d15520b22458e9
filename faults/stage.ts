import postgres from 'postgres'
import { createDatabase, direct } from '../test/support/database.ts'
import { type Link, openLink } from '../test/support/link.ts'
import { freePort } from '../test/support/port.ts'
import { type Running, type Settings, startAssay } from '../test/support/process.ts'
import type { OwnPostgres } from './postgres.ts'
import type { OwnRedis } from './redis.ts'
import { signUp } from './tenant.ts'

/** N, in milliseconds: the bound under test. */
export const N = 1_000

const MOST_STARTS = 3

export interface Replica {
  process: Running
  link: Link
  /** Leads to the same database, by the second host of the replica's URL; it closes every connection until a fault needs it. */
  spare: Link
  /** With its port, so that one that was killed comes back to where its clients look for it. */
  settings: Settings
}

/** As a URL, in which no space can be. */
const STALL = import.meta.resolve('./stall.ts')

const ADMIN_TOKEN = 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5'

/** Real servers on one database, each over a link that can fail. The first is never the one that is cut off. */
export interface Stage {
  replicas: [Replica, ...Replica[]]
  /** The database's server, where it is our own; after a failover another one. */
  server: OwnPostgres | undefined
  /** Of all replicas, where they have one. */
  redis: OwnRedis | undefined
  /** The database, past every link; after a failover on another server. */
  url: string
  apiKey: string
  stop(): Promise<void>
}

export interface StageOptions {
  serverUrl: string
  server?: OwnPostgres
  redis?: OwnRedis | undefined
  replicas: number
  /** Beside those that every stage has. */
  settings?: Settings
}

export async function makeStage(options: StageOptions): Promise<Stage> {
  const { serverUrl, server, redis } = options
  const { url: named, drop } = await createDatabase(serverUrl)
  const url = direct(named)
  // One after the other: on a busy machine each then has its time to start.
  const replicas: Stage['replicas'] = [await startReplica(url, options)]
  while (replicas.length < options.replicas) replicas.push(await startReplica(url, options))
  const { apiKey } = await signUp({ replicas })
  async function stop() {
    await Promise.all(replicas.map(({ process }) => process.stop('SIGKILL')))
    for (const { link, spare } of replicas) for (const each of [link, spare]) each.close()
    // What is on a server of our own ends with it.
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
    // The load asks as fast as it is answered.
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

/** The first link's URL, with the second one's address behind its own. */
const withHosts = (first: Link, second: Link) =>
  first.url.replace(new URL(first.url).host, `$&,${new URL(second.url).host}`)

/** After its end, as a supervisor does: a start that finds no database in time is tried again. */
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

export async function readingOf(replica: Replica): Promise<Reading> {
  const text = await metricsOf(replica)
  return {
    polls: countOf(text, 'assay_change_feed_polls_total'),
    failures: countOf(text, 'assay_change_feed_poll_failures_total'),
    reloads: sumOf(text, 'assay_change_feed_reloads_total'),
    stalled: countOf(text, 'nodejs_eventloop_lag_max_seconds'),
  }
}

/** One count of a replica's, by its name with its labels. */
export const countAt = async (replica: Replica, name: string) => countOf(await metricsOf(replica), name)

async function metricsOf({ process }: Replica): Promise<string> {
  const response = await fetch(`${process.url}/metrics`, {
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
  })
  return response.text()
}

/** One count, over all its labels. */
function sumOf(text: string, name: string): number {
  const lines = text.split('\n').filter(line => line.startsWith(`${name}{`))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

function countOf(text: string, name: string): number {
  const line = text.split('\n').find(line => line.startsWith(`${name} `))
  if (line === undefined) throw new Error(`/metrics does not tell ${name}`)
  return Number(line.slice(name.length))
}
