import { onTestFinished } from 'vitest'
import { type Connection, type Database, open } from '../../db/client.ts'
import { isMigrated } from '../../db/migration-files.ts'
import type { Redis } from '../../db/redis.ts'
import { createLog } from '../../server/lib/logger.ts'
import { createReplica } from '../../server/replica.ts'
import { ask } from './ask.ts'
import { checkResponse } from './openapi.ts'
import { redisOf } from './redis.ts'
import { type Answer, bearer, configOf, type Settings, type World } from './world.ts'

/** Statement names that occur in their texts. */
export const named = (...names: string[]) => new RegExp(names.map(name => `/\\* ${name} \\*/`).join('|'))

export const LOADER = named('findRecords')
export const POLL = named('poll')

/**
 * A real database whose answers a test can hold back: the statement has run, but its caller has no answer yet. Counts the
 * statements.
 */
export function holding(db: Database) {
  const held: { pattern: RegExp; reached: () => void; released: Promise<void> }[] = []
  const asked: string[] = []
  let edit = (statement: string) => statement

  async function pass<Result>(statement: string, run: (edited: string) => Promise<Result>): Promise<Result> {
    asked.push(statement)
    const hold = held.find(({ pattern }) => pattern.test(statement))
    if (hold) held.splice(held.indexOf(hold), 1)
    const answer = await run(edit(statement))
    hold?.reached()
    await hold?.released
    return answer
  }

  const through = (line: Connection) => ({
    query: <Row>(statement: string, params?: readonly unknown[]) =>
      pass(statement, edited => line.query<Row>(edited, params)),
    values: (statement: string, params?: readonly unknown[]) =>
      pass(statement, edited => line.values(edited, params)),
    close: () => line.close(),
  })

  /** Holds the next answer to a statement that matches `pattern`. */
  function hold(pattern: RegExp) {
    let release = () => {}
    let reached = () => {}
    const released = new Promise<void>(resolve => {
      release = resolve
    })
    /** Resolves when an answer is held. */
    const has = new Promise<void>(resolve => {
      reached = resolve
    })
    held.push({ pattern, reached: () => reached(), released })
    // Releases held answers if a test fails. These callbacks run before those registered earlier.
    onTestFinished(() => release())
    return { has, release: () => release() }
  }

  const wrapped: Database = {
    ...db,
    ...through(db),
    connection: deadline => through(db.connection(deadline)),
  }
  return {
    db: wrapped,
    hold,
    /**
     * Answers statements that match `pattern` as a server on another timeline would, as after a failover; undefined stops
     * this.
     */
    otherTimeline(pattern: RegExp | undefined) {
      edit = statement =>
        pattern?.test(statement)
          ? statement.replace(/'standby'\n\s+else substr/, "'standby' else 'x' || substr")
          : statement
    },
    /** From now on every statement is answered as if the server had restarted. */
    restarted() {
      edit = statement =>
        statement.replace('pg_postmaster_start_time()', "(pg_postmaster_start_time() + interval '1 second')")
    },
    /** How many statements that match `pattern` were sent. */
    asked: (pattern: RegExp) => asked.filter(statement => pattern.test(statement)).length,
    /** How many statements were sent in all. */
    total: () => asked.length,
  }
}

export type OwnReplica = Awaited<ReturnType<typeof replicaOn>>

/** A replica with its own link to the same database. Stopped when the test ends. */
export async function replicaOn(
  world: Pick<World, 'config' | 'keyRing'>,
  db: Database,
  settings: Settings = {},
  throughRedis = (redis: Redis) => redis,
) {
  const config = { ...configOf({ LOG_LEVEL: 'error', ...settings }), masterKeys: world.config.masterKeys }
  const ahead = { monotonic: 0, wall: 0 }
  const clock = {
    monotonic: () => performance.now() + ahead.monotonic,
    wall: () => Date.now() + ahead.wall,
    boot: () => ({ id: 'own', reading: performance.now() + ahead.monotonic }),
    ahead,
  }
  const log = createLog('silent')
  const state = { draining: () => false, migrated: () => isMigrated(db) }
  const opened = redisOf(config, log)
  const redis = opened && throughRedis(opened)
  const replica = createReplica({
    config,
    db,
    redis,
    keyRing: world.keyRing,
    clock,
    log,
    process: state,
    processMetrics: false,
  })
  onTestFinished(async () => {
    await replica.stop()
    redis?.close()
  })
  await replica.changeFeed.start()

  async function request(path: string, init: RequestInit = {}): Promise<Answer> {
    const response = await ask(replica.app, path, init)
    const text = await response.text()
    const { status, headers } = response
    checkResponse({ method: init.method ?? 'GET', path }, { status, headers, body: text })
    return { status, headers, text, json: text.startsWith('{') ? JSON.parse(text) : {} }
  }

  const verify = (token: string) => request('/verify', { headers: bearer(token) })
  const post = (path: string, form: Record<string, string>, headers: Record<string, string> = {}) =>
    request(path, { method: 'POST', headers, body: new URLSearchParams(form) })
  return { ...replica, redis, clock, request, verify, post }
}

/** A separate link to a Postgres, closed when the test ends. */
export async function linkTo(url: string): Promise<Database> {
  const db = await open({ url })
  onTestFinished(() => db.close())
  return db
}

/** Waits for a poll that is sent after this call: the first may join one that is already running. */
export async function hear(...replicas: { changeFeed: { poll(): Promise<void> } }[]): Promise<void> {
  for (const { changeFeed } of replicas) {
    await changeFeed.poll()
    await changeFeed.poll()
  }
}
