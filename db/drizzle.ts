import { createRequire } from 'node:module'

// drizzle is loaded as CommonJS, because Node parses its package.json (179 KB) once for each of its 114 ES modules.
// That takes half a second and 200 MB, and a single import of `drizzle-orm` as an ES module anywhere costs it again.
const require = createRequire(import.meta.url)
const orm: typeof import('drizzle-orm') = require('drizzle-orm')
const pgCore: typeof import('drizzle-orm/pg-core') = require('drizzle-orm/pg-core')
const pgProxy: typeof import('drizzle-orm/pg-proxy') = require('drizzle-orm/pg-proxy')
const migrator: typeof import('drizzle-orm/migrator') = require('drizzle-orm/migrator')

export type { Placeholder as TypedPlaceholder, SQL, SQLWrapper } from 'drizzle-orm'
export type { AnyPgColumn, AnyPgTable, PgTable } from 'drizzle-orm/pg-core'
export type { PgRemoteDatabase } from 'drizzle-orm/pg-proxy'

export const { and, asc, desc, DrizzleQueryError, eq, getTableColumns, or, Placeholder, sql } = orm
export const {
  alias,
  bigint,
  boolean,
  check,
  customType,
  getTableConfig,
  index,
  integer,
  PgDialect,
  pgSchema,
  primaryKey,
  text,
  timestamp,
  uniqueIndex,
  uuid,
} = pgCore
export const { drizzle } = pgProxy
export const { readMigrationFiles } = migrator
