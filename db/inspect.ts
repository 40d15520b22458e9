import { connected, NEEDED } from './connection.ts'

/** What a URL leads to. */
export interface Server {
  /** The same for every way to one database. */
  identity: string
  standby: boolean
  /** A pooler stands between: it makes up the number that cancels a call, which is otherwise the backend's pid. */
  pooled: boolean
  /** Settings that sessions have though Assay needs others; without a pooler it sets its own. */
  unfit: { name: string; value: string; needed: string }[]
}

const QUESTION = `
  select pg_backend_pid() as pid, pg_is_in_recovery() as standby,
    (select system_identifier from pg_control_system()) || '/' ||
      (select oid from pg_database where datname = current_database()) as identity,
    ${Object.keys(NEEDED)
      .map(name => `current_setting('${name}') as ${name}`)
      .join(', ')}`

/** Asks the server itself, on a connection of its own. Throws Unavailable. */
export function inspect(url: string): Promise<Server> {
  return connected(url, async connection => {
    const { pid, standby, identity, ...settings } = (await connection.query(QUESTION)).rows[0]
    const pooled = pid !== (connection as unknown as { processID: number }).processID
    const unfit = Object.entries(NEEDED)
      .map(([name, needed]) => ({ name, needed, value: settings[name] as string }))
      .filter(({ name, needed, value }) => pooled && value !== needed && !isStronger(name, value))
    return { identity, standby, pooled, unfit }
  })
}

/** It waits for the standby's memory as well. */
const isStronger = (name: string, value: string) => name === 'synchronous_commit' && value === 'remote_apply'
