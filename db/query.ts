import type { Connection } from './client.ts'
import { DrizzleQueryError, drizzle, sql, type TypedPlaceholder } from './drizzle.ts'
import { type Value, withName } from './prepared.ts'

/** A query runs on anything that returns rows as arrays. */
type Querier = Pick<Connection, 'values'>

export type Builder = ReturnType<typeof drizzle>

/**
 * The parameters of a query, which takes each of them by destructuring: `({ email }: Params<{ email: string }>) =>
 * eq(customers.email, email)`. The object has no properties to enumerate.
 */
export type Params<Values> = { [name in keyof Values & string]: TypedPlaceholder<name, Values[name]> }

/** drizzle builds this: a `select`, `insert`, `update` or `delete`. */
interface Buildable<Result> {
  prepare(name: string): { execute(values: Record<string, unknown>): Promise<Result> }
}

/** The row that a query answers with. */
export type RowOf<Query extends (...args: never[]) => Promise<unknown[]>> = Awaited<ReturnType<Query>>[number]

/**
 * A query that drizzle builds. It is built once for each connection, at its first call there (about 0.2 ms); its text never
 * depends on a request. `name` is in the text, so that Postgres' log and pg_stat_statements show it.
 */
export function query<Values extends { [name in keyof Values]: Value }, Result>(
  name: string,
  build: (db: Builder, params: Params<Values>) => Buildable<Result>,
) {
  const runs = new WeakMap<Querier, (values: Values) => Promise<Result>>()
  return (db: Querier, values: Values): Promise<Result> => {
    let run = runs.get(db)
    if (!run) {
      run = prepare(db, name, build)
      runs.set(db, run)
    }
    return run(values)
  }
}

function prepare<Values, Result>(
  db: Querier,
  name: string,
  build: (db: Builder, params: Params<Values>) => Buildable<Result>,
) {
  const names: string[] = []
  const params = new Proxy({} as Params<Values>, { get: (_, param: string) => placeholder(param, names) })
  let text: string | undefined
  const builder = drizzle(async (built, bound) => {
    text ??= withName(name, built)
    return { rows: await db.values(text, bound) }
  })
  const built = build(builder, params).prepare(name)
  return (values: Values) => {
    const given = values as Record<string, Value>
    const bound = Object.fromEntries(names.map(param => [param, given[param] ?? null]))
    return built.execute(bound).catch(throwCause)
  }
}

function placeholder(name: string, names: string[]) {
  names.push(name)
  return sql.placeholder(name)
}

/** drizzle's own error holds the SQL and its parameters, and hides whether the database was available at all. */
function throwCause(error: unknown): never {
  throw error instanceof DrizzleQueryError ? error.cause : error
}
