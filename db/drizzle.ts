import { createRequire } from 'node:module'

// Loaded as CommonJS: Node parses drizzle's package.json of 179 KB anew for each of its ES modules, 114 times at a start.
// That took half a second and 200 MB. One import of `drizzle-orm` as an ES module anywhere would bring the price back.
const require = createRequire(import.meta.url)
const orm: typeof import('drizzle-orm') = require('drizzle-orm')
const pgCore: typeof import('drizzle-orm/pg-core') = require('drizzle-orm/pg-core')
const pgProxy: typeof import('drizzle-orm/pg-proxy') = require('drizzle-orm/pg-proxy')
const migrator: typeof import('drizzle-orm/migrator') = require('drizzle-orm/migrator')

export type { Placeholder, SQL, SQLWrapper } from 'drizzle-orm'
export type { AnyPgColumn, AnyPgTable, PgTable } from 'drizzle-orm/pg-core'
export type { PgRemoteDatabase } from 'drizzle-orm/pg-proxy'

export const { and, asc, desc, DrizzleQueryError, eq, getTableColumns, sql } = orm
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
} = pgCore
export const { drizzle } = pgProxy
export const { readMigrationFiles } = migrator
