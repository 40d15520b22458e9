import { customType, pgSchema, sql, timestamp } from '../drizzle.ts'

/** Everything lives in one schema, so that Assay can share a database with an application. */
export const assay = pgSchema('assay')

export const bytea = customType<{ data: Uint8Array }>({ dataType: () => 'bytea' })
export const instant = (name: string) => timestamp(name, { withTimezone: true })

/** All time in SQL comes from this one function of ours (a migration makes it), so that a test can move it. */
export const now = sql`assay.now()`
