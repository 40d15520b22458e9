import type { Connection } from './client.ts'
import { getTableConfig, type PgTable } from './drizzle.ts'
import { SchemaError } from './errors.ts'
import { isMigrated, lastMigration } from './migration-files.ts'
import { apiKeys } from './schema/api-keys.ts'
import { auditEventIds, auditEvents } from './schema/audit-events.ts'
import { auditBatches, auditSequencer } from './schema/audit-order.ts'
import { changeFeed } from './schema/change-feed.ts'
import { customers } from './schema/customers.ts'
import { clockBaselines, databaseClock } from './schema/database-clock.ts'
import { idempotencyKeys } from './schema/idempotency-keys.ts'
import { installation } from './schema/installation.ts'
import { masterKeys } from './schema/master-keys.ts'
import { oneTimeTokens } from './schema/one-time-tokens.ts'
import { replicas } from './schema/replicas.ts'
import { revocations } from './schema/revocations.ts'
import { services } from './schema/services.ts'
import { sessions } from './schema/sessions.ts'
import { signingKeys } from './schema/signing-keys.ts'
import { epochs, subjectEpochs } from './schema/subject-epochs.ts'

/** Detects a partially restored or foreign database at the start, and not at the first request. */

type Querier = Pick<Connection, 'query'>

/** These exist only in the migrations, because the schema in TypeScript can't express them. */
const BY_HAND = [
  'function now',
  'function clock_is_trusted',
  'function make_audit_partitions',
  'function detach_audit_partition',
  'function drop_audit_partition',
  'function delete_audit_events',
  'function protect_audit',
  'function order_audit_events',
  'function delete_audit_batches',
  'audit_events_default',
]

const TABLES = [
  apiKeys,
  auditBatches,
  auditEvents,
  auditSequencer,
  changeFeed,
  clockBaselines,
  customers,
  databaseClock,
  idempotencyKeys,
  installation,
  masterKeys,
  oneTimeTokens,
  replicas,
  services,
  revocations,
  sessions,
  signingKeys,
  subjectEpochs,
]

/** The names that must be in the schema. The name of a column or index follows its table's name and a dot. */
export const NEEDED = [...BY_HAND, epochs.seqName!, auditEventIds.seqName!, ...TABLES.flatMap(findNames)]

function findNames(table: PgTable): string[] {
  const { name, columns, indexes, primaryKeys, uniqueConstraints } = getTableConfig(table)
  const parts = [
    ...columns.map(column => column.name),
    ...columns.filter(column => column.primary).map(() => `${name}_pkey`),
    ...columns.filter(column => column.isUnique).map(column => column.uniqueName!),
    ...indexes.map(index => index.config.name!),
    ...primaryKeys.map(key => key.getName()),
    ...uniqueConstraints.map(key => key.getName()!),
  ]
  return [name, ...parts.map(part => `${name}.${part}`)]
}

/** Selects the names that are there, in the same form. */
const NAMES_THERE = `
  with relations as (select * from pg_class where relnamespace = 'assay'::regnamespace)
  select relname::text as name from relations where relkind not in ('i', 'I')
  union all
  select r.relname || '.' || a.attname from relations r join pg_attribute a on a.attrelid = r.oid
  where r.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
  union all
  select r.relname || '.' || i.relname from relations r join pg_index x on x.indrelid = r.oid
    join pg_class i on i.oid = x.indexrelid
  union all
  select 'function ' || proname from pg_proc where pronamespace = 'assay'::regnamespace`

const namesThere = async (db: Querier) =>
  (await db.query<{ name: string }>(NAMES_THERE)).map(({ name }) => name)

/** Throws SchemaError if a schema without a recorded migration has anything in it. */
export async function assertEmpty(db: Querier) {
  const others = (await namesThere(db)).filter(name => !/^migrations|\./.test(name))
  if (others.length > 0) throw new SchemaError(`has ${listed(others)} but no record of a migration`)
}

/** Throws SchemaError if a schema with all migrations recorded lacks anything. */
export async function assertWhole(db: Querier) {
  const there = await namesThere(db)
  const missing = NEEDED.filter(name => !there.includes(name))
  // A missing table is named without its columns and indexes.
  const named = missing.filter(name => !missing.some(table => name.startsWith(`${table}.`)))
  if (named.length > 0) throw new SchemaError(`lacks ${listed(named)}`)
}

function listed(names: string[]): string {
  const sorted = names.toSorted()
  return sorted.length > 4
    ? `${sorted.slice(0, 3).join(', ')} and ${sorted.length - 3} more`
    : sorted.join(', ')
}

/**
 * Throws SchemaError for an error of SQLSTATE class 42: something that a statement names doesn't exist, or exists
 * already. Rethrows any other error, and 42501, which means that the role lacks a privilege.
 */
export function throwSchemaError(error: unknown): never {
  const { code, sqlstate = code } = error as { code?: string; sqlstate?: string }
  if (!/^42(?!501)/.test(sqlstate ?? '')) throw error
  throw new SchemaError(`differs from what its migrations create (SQLSTATE ${sqlstate})`, error)
}

/** Returns what a migration would find there, and changes nothing. Throws SchemaError. */
export const stateOfSchema = (db: Querier) => lookAtSchema(db).catch(throwSchemaError)

async function lookAtSchema(db: Querier): Promise<'none' | 'older' | 'current'> {
  const [there] = await db.query<{ schema: boolean; journal: boolean }>(
    `select to_regnamespace('assay') is not null as schema, to_regclass('assay.migrations') is not null as journal`,
  )
  if (!there!.schema) return 'none'
  if (!there!.journal || (await lastMigration(db)) === 0) {
    await assertEmpty(db)
    return 'none'
  }
  if (!(await isMigrated(db))) return 'older'
  await assertWhole(db)
  return 'current'
}

/** Each condition means that rows were lost: none is true of a database that only Assay has written to. */
const GAPS = {
  'has no counter of revocations': 'not exists (select from assay.change_feed)',
  'has more than one counter of revocations': '(select count(*) from assay.change_feed) > 1',
  'has revocations beyond its counter':
    '(select max(seq) from assay.change_feed) < (select max(seq) from assay.revocations)',
  'has no row for the observations of its clock': 'not exists (select from assay.database_clock)',
  // Logical replication doesn't copy sequences: the next revocation would get an epoch that was already used.
  'has epochs beyond its sequence': `(select last_value from assay.epochs) <
    greatest((select max(epoch) from assay.customers), (select max(epoch) from assay.subject_epochs),
      (select max(epoch) from assay.installation))`,
  'has no state of the audit sequencer': 'not exists (select from assay.audit_sequencer)',
  // The next events would get ids that the sequencer has already passed, and no position.
  'has ordered audit events whose ids are beyond its sequence':
    '(select last_id from assay.audit_sequencer) > (select last_value from assay.audit_event_ids)',
  'has audit positions beyond its sequencer':
    '(select position from assay.audit_sequencer) < (select max(last_position) from assay.audit_batches)',
  'has customers but no installation':
    'exists (select from assay.customers) and not exists (select from assay.installation)',
  'has an installation but no check value of any master key':
    'exists (select from assay.installation) and not exists (select from assay.master_keys)',
  'has customers but no signing keys':
    'exists (select from assay.customers) and not exists (select from assay.signing_keys)',
}

const FIND_GAPS = Object.entries(GAPS)
  .map(([gap, holds]) => `select '${gap}' as gap where ${holds}`)
  .join(' union all ')

/** Throws SchemaError if rows were lost from a migrated database. */
export async function assertNoGaps(db: Querier) {
  const gaps = await db.query<{ gap: string }>(FIND_GAPS)
  if (gaps.length > 0) throw new SchemaError(gaps.map(({ gap }) => gap).join(', and '))
}
