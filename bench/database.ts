import postgres from 'postgres'

/** Databases that the bench makes on the server it was told of, and drops. */

const drops: (() => Promise<unknown>)[] = []
let made = 0
let isEnding = false

/** Nothing is made after this: a run that a signal ends may still be in the midst of it. */
export async function dropAll() {
  isEnding = true
  for (const drop of drops.splice(0)) await drop()
}

/** An empty database: the first start of a server on it migrates it. */
export async function createDatabase(server: string): Promise<string> {
  if (isEnding) throw new Error('the run is ending')
  const name = `assay_bench_${process.pid}_${++made}`
  const created = query(server, `create database ${name}`)
  drops.push(async () => {
    await created.catch(() => {})
    await query(server, `drop database if exists ${name} with (force)`)
  })
  await created
  return Object.assign(new URL(server), { pathname: `/${name}` }).href
}

/** What autovacuum would do at a time of its own. */
export const vacuum = (url: string) => query(url, 'vacuum analyze')

/** A statement by a connection of its own, as long as it takes. */
export async function query(url: string, statement: string, params: unknown[] = []): Promise<unknown[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  try {
    return await sql.unsafe(statement, params as never[])
  } finally {
    await sql.end()
  }
}
