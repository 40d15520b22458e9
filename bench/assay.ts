import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { open } from '../db/client.ts'
import { loadKeyRing } from '../server/keys/master-keys.ts'
import { control, createDatabase } from '../test/support/database.ts'
import { freePort } from '../test/support/port.ts'
import type { Target } from './load.ts'
import { SERVER, start, stop } from './processes.ts'
import { scratchFolder } from './scratch.ts'
import { type Customer, ISSUER, seedCustomers } from './seed.ts'

/** The server as its users start it, with the settings that it has by itself. */

const MAIN = join(import.meta.dirname, '../server/main.ts')
export const GATEWAY = { id: 'gateway', secret: 'Gw7fQ2mZk1Vx9sTb4Yc6Lr8Np3Hd5Je0Ua' }

const MASTER_KEY = randomBytes(32)

export interface Installation {
  url: string
  customers: Customer[]
  /** A statement on its database. */
  query(statement: string, params?: unknown[]): Promise<unknown[]>
}

const drops: (() => Promise<void>)[] = []

/** All that were installed. */
export async function dropAll() {
  for (const drop of drops.splice(0)) await drop()
}

/** A database with so many customers, of which the first `known` are told of. */
export async function install(postgres: string, many: number, known = many): Promise<Installation> {
  const { url, drop } = await createDatabase(postgres)
  drops.push(drop)
  const db = await open({ url })
  const keyRing = await loadKeyRing(db, [{ id: 'm1', bytes: MASTER_KEY }])
  const customers = await seedCustomers(db, keyRing, many, known)
  await db.close()
  // As long as it takes: the server's own connections give up after five seconds.
  const sql = control(url)
  drops.unshift(() => sql.end())
  return {
    url,
    customers,
    query: (statement, params = []) => sql.unsafe(statement, params as never[]),
  }
}

export interface Assay extends Target {
  /** From its start until it was ready (ms). */
  readyAfter: number
  adminToken: string | undefined
  stop(): Promise<void>
}

export type Settings = Record<string, string>

export async function startAssay(settings: Settings): Promise<Assay> {
  const port = await freePort()
  const began = performance.now()
  const child = start('WORKERS' in settings ? undefined : SERVER, [process.execPath, MAIN], {
    env: { ...COMMON, ...settings, PORT: String(port) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const complaint = collected(child)
  await ready(port, child).catch(async error => {
    await stop(child)
    throw new Error(`${(error as Error).message}: ${complaint()}`)
  })
  const { ADMIN_TOKEN: adminToken } = settings
  return { port, pid: child.pid!, readyAfter: performance.now() - began, adminToken, stop: () => stop(child) }
}

/** On Postgres, with customers of its own. */
export const onPostgres = (url: string, settings: Settings = {}) =>
  startAssay({ ...settingsOf(url), ...settings })

/** All that a server on it must be told. */
export const settingsOf = (url: string): Settings => ({
  ...COMMON,
  DATABASE_URL: url,
  ADMIN_TOKEN: randomBytes(30).toString('hex'),
})

/** On a database of its own, which an earlier start has made. */
export async function embedded(): Promise<Assay> {
  const folder = await scratchFolder()
  await (await startAssay({ DATA_DIR: folder })).stop()
  return startAssay({ DATA_DIR: folder })
}

const COMMON = {
  // As `npm start` has it.
  NODE_COMPILE_CACHE: join(import.meta.dirname, '../node_modules/.cache/assay'),
  PATH: process.env.PATH ?? '',
  ISSUER,
  MASTER_KEYS: `m1:${MASTER_KEY.toString('base64')}`,
  RESOURCE_SERVERS: `${GATEWAY.id}:${GATEWAY.secret}`,
  // Who logs in comes from many addresses, or the limit on logins would be what is measured.
  TRUST_PROXY: '127.0.0.1',
}

function collected(child: ChildProcess) {
  let text = ''
  child.stderr!.setEncoding('utf8').on('data', chunk => {
    text += chunk
  })
  return () => text
}

/** Between two looks (ms): the start is known this exactly. */
const LOOK = 5

async function ready(port: number, child: ChildProcess) {
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined)
    if (answer?.ok) return
    if (child.exitCode !== null) throw new Error('Assay did not start')
    await new Promise(resolve => setTimeout(resolve, LOOK))
  }
}
