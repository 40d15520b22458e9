import { Unavailable } from '../server/lib/errors.ts'

/** A statement that the database refused: a bug of ours or a constraint. Holds no SQL text and no parameters. */
export class DatabaseError extends Error {
  readonly sqlstate: string
  readonly constraint: string | undefined

  constructor(sqlstate: string, constraint: string | undefined, stack: string | undefined) {
    super(`the database refused a statement (SQLSTATE ${sqlstate}${constraint ? `, ${constraint}` : ''})`)
    this.sqlstate = sqlstate
    this.constraint = constraint
    if (stack) this.stack = `${this.message}\n${framesOf(stack)}`
  }
}

/** The folder's content is not a sound database. */
export class CorruptDatabaseError extends Error {
  constructor(folder: string, cause?: unknown) {
    super(
      `the database in ${folder} is damaged and can't be opened; copy the folder, then restore your backup ` +
        'in its place. Without a backup, move the folder away: the next start creates an empty database',
      { cause },
    )
    this.name = 'DatabaseDamaged'
  }
}

/** The schema exists but isn't in the state that Assay's migrations leave it in. */
export class SchemaError extends Error {
  /** The problem as a predicate that completes "the schema assay of this database ...". */
  readonly found: string

  constructor(found: string, cause?: unknown) {
    super(
      `the schema assay of this database ${found}: it was restored in part, changed by hand, or belongs to another program; ` +
        'restore the whole backup (docs/operating.md#restore), or use another database',
      { cause },
    )
    this.name = 'SchemaUnfit'
    this.found = found
  }
}

/**
 * A driver failed before it sent a statement to the database, or after the database answered. Holds no SQL text and no
 * parameters.
 */
class DriverError extends Error {
  constructor(stack: string | undefined) {
    super('the database driver could not send a statement or read its result')
    if (stack) this.stack = `${this.message}\n${framesOf(stack)}`
  }
}

// Keeps only the stack frames: the driver's message may repeat parameters.
const framesOf = (stack: string) =>
  stack
    .split('\n')
    .filter(line => /^\s+at /.test(line))
    .join('\n')

/**
 * SQLSTATE classes which mean that the state is unknown, and not that the statement is wrong: 08 connection; 0A000 and 26000 a
 * prepared statement that the server no longer has or that has changed; 25006 read-only (a standby); 28 and 3D login refused; 40
 * rolled back because of another transaction; 53 out of a resource; 55P03 and 57 stopped or cancelled; 58 and XX errors of the
 * server itself.
 */
const UNAVAILABLE = /^(08...|0A000|25006|26000|28...|3D000|40...|53...|55P03|57...|58...|XX...)$/

/** Codes of the driver or the system which mean that the connection itself failed. */
const LINK = /^(CONNECTION_|CONNECT_TIMEOUT|E(?!RR_)[A-Z_]+$|ERR_(TLS|SSL))/

/** Converts a driver's error into one that may be logged: `Unavailable` if the state is unknown. */
export function translate(error: unknown): Error {
  const code = codeOf(error)
  if (error instanceof Unavailable) return error
  if (LINK.test(code) || UNAVAILABLE.test(code)) return new Unavailable(`database: ${code}`, 'database')
  if (/^[0-9A-Z]{5}$/.test(code)) {
    const {
      constraint,
      constraint_name: name = constraint,
      stack,
    } = error as Record<string, string | undefined>
    return new DatabaseError(code, name, stack)
  }
  if (!(error instanceof Error)) return new Error('the database driver threw something that is not an error')
  return isOfStatement(error) ? new DriverError(error.stack) : error
}

/** The database executes statements but refuses this one, because it is read-only (a standby) or its disk is full. */
const REFUSED = /^database: (25006|53100)$/

/** Whether the database answered the call that failed with this error; true without an error. */
export const wasAnswered = (error: unknown) =>
  !(error instanceof Unavailable && error.reason === 'database') || REFUSED.test(error.detail ?? '')

/** Both drivers attach the statement and its parameters to an error, partly as properties that are not enumerable. */
const isOfStatement = (error: Error) => ['query', 'parameters', 'params'].some(name => name in error)

const codeOf = (error: unknown) => String((error as { code?: unknown } | null)?.code ?? '')
