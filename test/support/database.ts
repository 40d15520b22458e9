import postgres from 'postgres'
import { type Database, open } from '../../db/client.ts'
import { migratePostgres } from '../../db/migrate.ts'

export interface TestDatabase {
  db: Database
  /** Undefined: embedded. */
  url: string | undefined
  drop(): Promise<void>
}

/** A database of its own, migrated: embedded in memory, or a new one on the server at `serverUrl`. */
export async function makeDatabase(serverUrl: string): Promise<TestDatabase> {
  if (serverUrl === '') {
    const db = await open({ folder: 'memory://' })
    return { db, url: undefined, drop: () => db.close() }
  }
  const { url, drop } = await createDatabase(serverUrl)
  await migratePostgres(url)
  const db = await open({ url })
  return {
    db,
    url,
    drop: async () => {
      await db.close()
      await drop()
    },
  }
}

/** A database with a name that no other worker has: empty, or a copy of one that nobody is connected to. */
export async function createDatabase(
  serverUrl: string,
  copyOf?: string,
): Promise<{ url: string; drop(): Promise<void> }> {
  const name = `assay_test_${process.pid}_${Math.random().toString(36).slice(2, 10)}`
  const template = copyOf === undefined ? '' : ` template ${new URL(copyOf).pathname.slice(1)}`
  await administer(serverUrl, `create database ${name}${template}`)
  const pooler = hostOf(serverUrl) === hostOf(process.env.TEST_DATABASE_URL) && process.env.TEST_POOLER
  // What its users have to set behind a pooler, where Assay can't.
  if (pooler) await administer(serverUrl, `alter database ${name} set statement_timeout = '4500ms'`)
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  return {
    url: pooler ? at(url.href, pooler) : url.href,
    drop: () => administer(serverUrl, `drop database ${name} with (force)`),
  }
}

/** A connection of the test's own, past the pooler if there is one. It is for the test to end. */
export const control = (url: string) => postgres(direct(url), { max: 1, onnotice: () => {} })

/** Past the pooler of `npm run test:pooler`, if there is one. */
export const direct = (url: string) =>
  hostOf(url) === process.env.TEST_POOLER ? at(url, hostOf(process.env.TEST_DATABASE_URL)!) : url

const hostOf = (url: string | undefined) => (url ? new URL(url).host : undefined)

/** The same database at another host and port. */
function at(url: string, host: string): string {
  const moved = new URL(url)
  moved.host = host
  return moved.href
}

async function administer(serverUrl: string, statement: string) {
  const sql = postgres(serverUrl, { max: 1, onnotice: () => {} })
  try {
    await sql.unsafe(statement)
  } finally {
    await sql.end()
  }
}
