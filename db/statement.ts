import type { Connection } from './client.ts'

export type Value = string | number | boolean | Uint8Array | Date | null | undefined

/** A comment or a string literal, which keep their colons; or a parameter's name, which is no cast. */
const NAMES = /--[^\n]*|'(?:[^']|'')*'|(?<!:):([a-zA-Z]\w*)/g

/** What statements are called, by their compiled texts. */
const called = new Map<string, string>()

/**
 * A statement with named parameters (`:name`), compiled once to numbered ones; the drivers prepare it at its first use.
 * Nothing is built at run time: its text never depends on what is asked. `call`: what Postgres calls it too, in its log and its views.
 */
export const statement =
  (call: string) =>
  <Params extends { [name in keyof Params]: Value }, Row>(text: string) => {
    const names: string[] = []
    const compiled = text.replace(NAMES, (part, name: string | undefined) => {
      if (name === undefined) return part
      if (!names.includes(name)) names.push(name)
      return `$${names.indexOf(name) + 1}`
    })
    called.set(compiled, call)
    return (db: Pick<Connection, 'query'>, params: Params): Promise<Row[]> =>
      db.query<Row>(
        compiled,
        names.map(name => params[name as keyof Params] ?? null),
      )
  }

/** Undefined: it is none of the above, and nobody asks it often. */
export const nameOf = (compiled: string) => called.get(compiled)
