import type { Connection } from './client.ts'
import { PgDialect, Placeholder, type SQL, sql } from './drizzle.ts'

export type Value = string | number | boolean | Uint8Array | Date | null | undefined

/** A parameter of a prepared statement. If a statement uses it twice, it is sent once. */
export const param = (name: string) => sql.placeholder(name)

/**
 * A statement in SQL over the schema's tables and columns, whose parameters are all `param`s. It is compiled once, at its
 * first call: its text never depends on a request. `name` is in the text, so that Postgres' log and pg_stat_statements show
 * it.
 */
export const prepared =
  (name: string) =>
  <Params extends { [param in keyof Params]: Value }, Row>(statement: SQL) => {
    let compiled: ReturnType<typeof compile> | undefined
    return (db: Pick<Connection, 'query'>, values: Params): Promise<Row[]> => {
      compiled ??= compile(name, statement)
      const { text, params } = compiled
      return db.query<Row>(
        text,
        params.map(param => values[param as keyof Params] ?? null),
      )
    }
  }

function compile(name: string, statement: SQL) {
  const params: string[] = []
  const numberOf = (value: unknown) => {
    if (!(value instanceof Placeholder))
      throw new Error(`${name}: a value is used where a parameter is needed`)
    if (!params.includes(value.name)) params.push(value.name)
    return `$${params.indexOf(value.name) + 1}`
  }
  const dialect = Object.assign(new PgDialect(), {
    escapeParam: (_: number, value: unknown) => numberOf(value),
  })
  return { text: withName(name, dialect.sqlToQuery(statement).sql), params }
}

/** Puts the statement's name into a comment behind its first keyword. */
export const withName = (name: string, text: string) => text.replace(/^\s*\w+/, `$& /* ${name} */`)

/** The name of a statement, from its text; undefined if it has none. */
export const statementName = (text: string) => /^\s*\w+ \/\* (\w+) \*\//.exec(text)?.[1]
