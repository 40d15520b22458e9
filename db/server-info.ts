import { connected } from './connect.ts'
import type { Target } from './connection-url.ts'
import { DATABASE_IDENTITY } from './database-identity.ts'
import type { PostgresConnection } from './postgres-connection.ts'

/** The server that a URL leads to. */
export type Server = Awaited<ReturnType<typeof inspect>>

/** The timeout of the query (ms). */
const DEADLINE_MS = 5_000

/**
 * Session settings that Assay relies on: durable commits, READ COMMITTED, bytes as hex and ISO dates, and an end of statements
 * before their callers are answered 503.
 */
const REQUIRED_SETTINGS: Record<string, { value: string; isFit(value: string): boolean }> = {
  synchronous_commit: { value: 'on', isFit: value => ['on', 'remote_apply'].includes(value) },
  default_transaction_isolation: { value: 'read committed', isFit: value => value === 'read committed' },
  bytea_output: { value: 'hex', isFit: value => value === 'hex' },
  DateStyle: { value: 'ISO, MDY', isFit: value => value.startsWith('ISO') },
  statement_timeout: { value: '4500ms', isFit: value => Number(value) > 0 && Number(value) <= 5_000 },
}

/** The settings of a session that is our own. */
export const sessionSettings = (deadline: number) => ({
  ...Object.fromEntries(Object.entries(REQUIRED_SETTINGS).map(([name, { value }]) => [name, value])),
  // A little before our own deadline, so that a statement that waits for a lock ends there too.
  statement_timeout: String(Math.floor(deadline * 0.9)),
})

interface Answer {
  pid: number
  database: string
  /** See DATABASE_IDENTITY. */
  identity: string
  standby: boolean
  /** Transactions are read-only by default: on a standby, or by a setting of the database, role or server. */
  readOnly: boolean
  /** Postgres's name for the encoding: `UTF8`, `LATIN1`, `SQL_ASCII`. */
  encoding: string
  settings: Record<string, string>
}

// pg_settings has only the number, in milliseconds; current_setting would add a unit.
const QUESTION = `
  select pg_backend_pid() as pid, current_database() as database, pg_is_in_recovery() as standby,
    current_setting('transaction_read_only') = 'on' as "readOnly",
    (select pg_encoding_to_char(encoding) from pg_database where datname = current_database()) as encoding,
    ${DATABASE_IDENTITY} as identity,
    (select json_object_agg(name, setting) from pg_settings
      where name in (${Object.keys(REQUIRED_SETTINGS)
        .map(name => `'${name}'`)
        .join(', ')})) as settings`

/**
 * Queries the server on a separate connection. Throws Unavailable.
 *
 * `name` is the database, host and port, without user and password. `pooled` means that a pooler is in between: it invents the
 * number that cancels a call, which is otherwise the backend's pid. `unfit` are settings of a pooler's sessions that differ from
 * those that Assay needs. Without a pooler Assay sets its own.
 */
export function inspect(url: string, reread?: Target['reread']) {
  const ask = async (connection: PostgresConnection) => {
    const [answer] = await connection.query<Answer>(QUESTION)
    const { pid, database, settings, ...server } = answer!
    const name = `${database} on ${connection.host.host}:${connection.host.port}`
    const pooled = pid !== connection.pid
    return { ...server, name, pooled, unfit: pooled ? findUnfit(settings) : [] }
  }
  return connected(url, DEADLINE_MS, ask, reread)
}

const findUnfit = (settings: Record<string, string>) =>
  Object.entries(REQUIRED_SETTINGS)
    .filter(([name, { isFit }]) => !isFit(settings[name]!))
    .map(([name, { value: needed }]) => ({ name, value: settings[name]!, needed }))
