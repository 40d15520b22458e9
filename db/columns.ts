import { type AnyPgColumn, type AnyPgTable, getTableColumns, type SQL, sql } from './drizzle.ts'

/** A table of the schema, under any alias that a statement uses. */
export type Columns<Table extends AnyPgTable> = {
  [name in keyof Table['_']['columns']]: AnyPgColumn
}

type ColumnName<Table extends AnyPgTable> = keyof Table['_']['columns'] & string

/** Some of a table's columns, for `select`. */
export const pick = <Table extends AnyPgTable, Name extends ColumnName<Table>>(
  table: Table,
  ...names: Name[]
): Pick<Table['_']['columns'], Name> =>
  Object.fromEntries(names.map(name => [name, columnOf(table, name)])) as Pick<Table['_']['columns'], Name>

/**
 * The column's name without its table, for places where SQL allows no table name: `set`, `on conflict`, and columns
 * of another part.
 */
export const bare = (column: AnyPgColumn) => sql.identifier(column.name)

/** The names of some of a table's columns, alone. */
export const bareList = <Table extends AnyPgTable>(table: Table, ...names: ColumnName<Table>[]): SQL =>
  sql.join(
    names.map(name => bare(columnOf(table, name))),
    sql`, `,
  )

/** `insert into table (columns)`. */
export const insertInto = <Table extends AnyPgTable>(table: Table, ...names: ColumnName<Table>[]): SQL =>
  sql`insert into ${table} (${bareList(table, ...names)})`

/** The assignments of `on conflict do update set`: these columns get the values of the rejected insert. */
export const setExcluded = <Table extends AnyPgTable>(table: Table, ...names: ColumnName<Table>[]): SQL =>
  sql.join(
    names.map(name => bare(columnOf(table, name))).map(column => sql`${column} = excluded.${column}`),
    sql`, `,
  )

const columnOf = (table: AnyPgTable, name: string) => getTableColumns(table)[name]!
