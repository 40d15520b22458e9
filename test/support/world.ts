import { randomBytes, randomInt } from 'node:crypto'
import { Writable } from 'node:stream'
import { inject, onTestFinished } from 'vitest'
import type { Database } from '../../db/client.ts'
import { isMigrated } from '../../db/migration-files.ts'
import type { App } from '../../server/app.ts'
import { type Config, loadConfig } from '../../server/config/load.ts'
import type { RefusalsOptions } from '../../server/http/refusals.ts'
import { loadKeyRing } from '../../server/keys/master-keys.ts'
import { createLog } from '../../server/lib/logger.ts'
import { listen } from '../../server/listen.ts'
import { createReplica } from '../../server/replica.ts'
import type { Parts as AllParts, Worker } from '../../server/services.ts'
import { ask } from './ask.ts'
import { makeDatabase } from './database.ts'
import { checkResponse } from './openapi.ts'
import { redisOf } from './redis.ts'

export const SERVICE = { id: 'gateway', secret: 'Gw7fQ2mZk1Vx9sTb4Yc6Lr8Np3Hd5Je0Ua' }
export const ADMIN_TOKEN = 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5'
/** Additional operators: alice, and grafana, which has read-only access. */
export const ALICE = 'alice-8Vd2Kq7Zx1Wm5Tn9Rc4Yb6Hf3Jg0Ls'
export const READER = 'reader-3Nf8Wp1Xk6Zt4Vb9Qm2Yc7Hd5Jr0Sg'

/** Settings by environment variable. */
export type Settings = Record<string, string>

export function configOf(settings: Settings = {}): Config {
  const defaults = {
    PORT: '0',
    ISSUER: 'http://assay.test',
    MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
    ADMIN_TOKEN,
    OPERATORS: `alice:${ALICE},grafana:read:${READER}`,
    SERVICES: `${SERVICE.id}:introspect:${SERVICE.secret}`,
    TRUST_PROXY: '127.0.0.1',
    LOG_LEVEL: 'debug',
    // Tests send requests faster than users do.
    TOKENS_PER_MINUTE: '1000000',
  }
  return loadConfig({ ...defaults, ...settings }, () => '')
}

export type World = Awaited<ReturnType<typeof makeWorld>>
export type Replica = Awaited<ReturnType<World['replica']>>
export type Customer = Awaited<ReturnType<Replica['signUp']>>

/** A migrated database for this test alone, of the kind that the vitest project uses. */
export const openTestDatabase = () =>
  makeDatabase(inject('databaseUrl'), {
    embeddedTemplate: inject('embeddedTemplate'),
    postgresTemplate: inject('postgresTemplate'),
  })

/**
 * One database with any number of replicas in this process. Nothing is mocked: the database is real, and tests move time
 * by the one function and the two clocks from which all times come.
 */
export async function makeWorld(settings: Settings = {}) {
  const { db, admin, url, drop } = await openTestDatabase()
  const config = configOf(settings)
  const keyRing = await loadKeyRing(db, config.masterKeys as never)
  const replicas: Awaited<ReturnType<typeof startReplica>>[] = []
  let ahead = 0
  let jumped = 0
  /** Advances the monotonic clock of all replicas too; a jump of the database's clock does not. */
  const boot = { id: 'world', elapsed: () => performance.now() + ahead }

  /** Another replica on the same database, over `link`, with its own clocks. `worker`: one of several workers on its port. */
  async function replica(
    more: Settings = {},
    { link = db, worker }: { link?: Database; worker?: Worker } = {},
  ) {
    const own = { ...configOf({ ...settings, ...more }), masterKeys: config.masterKeys }
    const made = await startReplica({ config: own, db: link, keyRing, worker }, boot)
    replicas.push(made)
    /** The world no longer waits for this replica. */
    async function stop() {
      if (replicas.includes(made)) replicas.splice(replicas.indexOf(made), 1)
      await made.stop()
    }
    return { ...made, stop }
  }

  /** Advances the database's clock, which tokens and sessions use, and waits until every replica has seen it. */
  async function advance(milliseconds: number) {
    ahead += milliseconds
    await setClock()
  }

  /** Sets the error of the database's clock to this much, and waits until every replica has seen it. */
  async function jump(milliseconds: number) {
    jumped += milliseconds
    await setClock()
  }

  async function setClock() {
    await setDatabaseClock(admin, ahead + jumped)
    // Polls twice: the first may join a poll that was sent before the clock was moved.
    for (const { changeFeed } of replicas) for (let polls = 0; polls < 2; polls++) await changeFeed.poll()
  }

  /** Runs a round of maintenance at each replica; one of them does the work. */
  async function maintain() {
    for (const { maintenance } of replicas) await maintenance.run()
  }

  async function stop() {
    for (const replica of [...replicas]) await replica.stop()
    await drop()
  }

  return { db, admin, url, config, keyRing, replica, advance, jump, maintain, stop }
}

async function setDatabaseClock(db: { query(statement: string): Promise<unknown> }, ahead: number) {
  await db.query(`create or replace function assay.now() returns timestamptz language sql volatile parallel safe
    as 'select date_trunc(''milliseconds'', clock_timestamp()) + interval ''${ahead} milliseconds'''`)
}

type Parts = Pick<AllParts, 'config' | 'db' | 'keyRing' | 'worker'>

async function startReplica(parts: Parts, boot: Boot) {
  const clock = movableClock(boot)
  const lines: string[] = []
  const sink = new Writable({
    write(chunk, _, done) {
      lines.push(String(chunk))
      done()
    },
  })
  const log = createLog(parts.config.logLevel, sink)
  const state = { draining: () => false, migrated: () => isMigrated(parts.db) }
  const redis = redisOf(parts.config, log)
  const assembled = createReplica({ ...parts, redis, clock, log, process: state, processMetrics: false })
  await assembled.changeFeed.start()
  const { app } = assembled

  /** Calls the app, from a unique address unless one is given; checks the answer against openapi.yaml. */
  async function request(path: string, init: RequestInit & { ip?: string } = {}): Promise<Answer> {
    const { ip = `10.${randomInt(256)}.${randomInt(256)}.${randomInt(256)}`, ...rest } = init
    const response = await ask(app, path, rest, ip)
    const body = await response.text()
    const { status, headers } = response
    checkResponse({ method: rest.method ?? 'GET', path }, { status, headers, body })
    return {
      status,
      headers,
      text: body,
      json: /[/+]json/.test(headers.get('content-type') ?? '') ? JSON.parse(body) : {},
    }
  }

  async function stop() {
    await assembled.stop()
    redis?.close()
  }

  const own = { redis, clock, lines, request, stop }
  return {
    ...assembled,
    ...calls(request),
    ...own,
    serve: (served: Pick<App, 'fetch'> = app) =>
      serve(served, parts.config, { clock, log, metrics: assembled.metrics }),
    serveUntilStopped: () => serveUntilStopped(app, parts.config, { clock, log, metrics: assembled.metrics }),
  }
}

// biome-ignore lint/suspicious/noExplicitAny: tests state which members they expect, and fail without them.
export type Answer = { status: number; headers: Headers; text: string; json: any }

type Request = (path: string, init?: RequestInit & { ip?: string }) => Promise<Answer>

/** The calls that nearly every test makes. */
function calls(request: Request) {
  const postJson = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    request(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })
  const postForm = (path: string, form: Record<string, string>, headers: Record<string, string> = {}) =>
    request(path, { method: 'POST', headers, body: new URLSearchParams(form) })
  const get = (path: string, token?: string, headers: Record<string, string> = {}) =>
    request(path, { headers: { ...(token === undefined ? {} : bearer(token)), ...headers } })
  const verify = (token: string, path = '/verify') => get(path, token)
  const introspect = (token: string, authorization = basic(SERVICE.id, SERVICE.secret)) =>
    postForm('/introspect', { token }, { Authorization: authorization })
  const refresh = (refreshToken: string, headers: Record<string, string> = {}) =>
    postForm('/refresh', { refresh_token: refreshToken }, headers)

  async function setPolicy(customerId: string, policy: object) {
    const { status, json } = await request(`/admin/customers/${customerId}/policy`, {
      method: 'PUT',
      headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
      body: JSON.stringify(policy),
    })
    if (status !== 200) throw new Error(`the policy was answered ${status}: ${json.detail}`)
  }

  async function signUp(email = `${randomBytes(8).toString('hex')}@example.com`) {
    const password = 'correct horse battery staple'
    const { status, json } = await postJson('/api/auth/signup', { email, password })
    if (status !== 201) throw new Error(`signup answered ${status}`)
    const { customer, api_key: apiKey, access_token: accessToken, refresh_token: refreshToken } = json
    const issue = (body: object = {}, headers: Record<string, string> = {}) =>
      postJson('/issue', body, { ...bearer(apiKey), ...headers })
    /** A user's session, with the scopes `read write`. */
    const session = async (body: object = {}) =>
      (await issue({ subject: 'user-1', scope: 'read write', refresh: true, ...body })).json as Tokens
    return {
      id: customer.id as string,
      email,
      password,
      apiKey,
      accessToken,
      refreshToken,
      issue,
      session,
    } as {
      id: string
      email: string
      password: string
      apiKey: string
      accessToken: string
      refreshToken: string
      issue: typeof issue
      session: typeof session
    }
  }

  return { postJson, postForm, get, verify, introspect, refresh, setPolicy, signUp }
}

export interface Tokens {
  access_token: string
  refresh_token: string
  session_id: string
  scope?: string
  expires_in: number
}

export const bearer = (token: string) => ({ Authorization: `Bearer ${token}` })
export const basic = (id: string, secret: string) =>
  `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`

/** The claims of a token, not verified. */
export const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())

/** The monotonic clock of a machine. */
interface Boot {
  id: string
  elapsed(): number
}

/** A replica's clocks, which a test may set apart from the world's. `restartOn` moves the replica to another machine. */
function movableClock(boot: Boot) {
  const offset = { monotonic: 0, wall: 0 }
  let on = boot
  return {
    boot: () => ({ id: on.id, reading: on.elapsed() }),
    restartOn(other: string) {
      on = { ...boot, id: other }
    },
    monotonic: () => performance.now() + offset.monotonic,
    wall: () => Date.now() + offset.wall,
    /** Advances both clocks, as when the process was stopped for so long (ms). */
    skip(milliseconds: number) {
      offset.monotonic += milliseconds
      offset.wall += milliseconds
    },
    setWall(milliseconds: number) {
      offset.wall += milliseconds
    },
  }
}

/** Serves the app on a real socket, for behaviour that only a socket shows. Closed when the test ends. */
async function serve(app: Pick<App, 'fetch'>, config: Config, own: RefusalsOptions) {
  const served = await serveUntilStopped(app, config, own)
  onTestFinished(served.stop)
  return served
}

async function serveUntilStopped(app: Pick<App, 'fetch'>, config: Config, own: RefusalsOptions) {
  const at = { host: '127.0.0.1', port: config.port }
  const listening = await listen(app, at, { draining: () => false, ...own })
  let accepted = 0
  listening.server.on('connection', () => accepted++)
  const stop = async () => {
    listening.server.closeAllConnections()
    await listening.close(0)
  }
  return { ...listening, url: `http://127.0.0.1:${listening.port}`, accepted: () => accepted, stop }
}
