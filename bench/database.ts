import postgres from 'postgres'

/** Creates databases on the given server, and drops them. */

const drops: (() => Promise<unknown>)[] = []
let made = 0
let isEnding = false

/** No database is created after this call, because a run that a signal ends may still be creating some. */
export async function dropAll() {
  isEnding = true
  for (const drop of drops.splice(0)) await drop()
}

/** Creates an empty database. The first server that starts on it migrates it. */
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

/** Does what autovacuum would do at some later time. */
export const vacuum = (url: string) => query(url, 'vacuum analyze')

/** Runs a statement on a new connection, without a timeout. */
export async function query(url: string, statement: string, params: unknown[] = []): Promise<unknown[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  try {
    return await sql.unsafe(statement, params as never[])
  } finally {
    await sql.end()
  }
}
