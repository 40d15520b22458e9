import type { Line } from './client.ts'

export type Value = string | number | boolean | Uint8Array | Date | null | undefined

/**
 * A statement with named parameters (`:name`), compiled once to numbered ones; the drivers prepare it at its first use.
 * For what is hot or has more than one step; what is built from parts at run time is drizzle's.
 */
export function statement<Params extends { [name in keyof Params]: Value }, Row>(text: string) {
  const names: string[] = []
  const compiled = text.replace(/(?<!:):([a-zA-Z]\w*)/g, (_, name: string) => {
    if (!names.includes(name)) names.push(name)
    return `$${names.indexOf(name) + 1}`
  })
  return (db: Pick<Line, 'query'>, params: Params): Promise<Row[]> =>
    db.query<Row>(
      compiled,
      names.map(name => params[name as keyof Params] ?? null),
    )
}
