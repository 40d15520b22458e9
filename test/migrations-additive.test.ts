import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { notAdditive } from './support/additive.ts'
import { MIGRATIONS } from './support/migrations.ts'
import { NEXT_MIGRATION } from './support/next-version.ts'

/** A migration only adds, so that a version can run beside the one before it (test/postgres/upgrades.test.ts). */

/**
 * The last migration of 0.1.0: later ones must work with running servers of that version. Until 0.1.0 is released, this
 * may be advanced.
 */
const LAST_OF_FIRST = '0002_audit_partitions'
const tags = MIGRATIONS.map(({ tag }) => tag)
const later = MIGRATIONS.slice(tags.indexOf(LAST_OF_FIRST) + 1)

const changelog = readFileSync(join(import.meta.dirname, '../CHANGELOG.md'), 'utf8')
const released = [...changelog.matchAll(/^## (\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)$/gm)].map(
  ([, version]) => version!,
)

test('every migration since the first release only adds', () => {
  expect(tags).toContain(LAST_OF_FIRST)
  const others = later.flatMap(({ tag, text }) => notAdditive(text, released).map(code => `${tag}: ${code}`))
  expect(
    others,
    'docs/decisions/2026-11-23-migrations-only-add.md says how to; before 0.1.0 is out, LAST_OF_FIRST',
  ).toEqual([])
})

test('the migration of the two-version tests makes every permitted change', () => {
  expect(notAdditive(NEXT_MIGRATION, released)).toEqual([])
})

const ADDS = [
  'CREATE TABLE "assay"."notes" ("id" text PRIMARY KEY NOT NULL, "at" timestamptz DEFAULT assay.now() NOT NULL)',
  'CREATE TABLE "assay"."notes" ("a" text UNIQUE); CREATE UNIQUE INDEX "n" ON "assay"."notes" ("a"); INSERT INTO "assay"."notes" DEFAULT VALUES',
  'CREATE TABLE assay.notes (a text); ALTER TABLE assay.notes ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES assay.customers(id) ON DELETE cascade ON UPDATE no action',
  'CREATE SEQUENCE "assay"."numbers"',
  `CREATE FUNCTION assay.f() RETURNS int LANGUAGE sql AS 'drop table x; select 1'`,
  'CREATE FUNCTION assay.f() RETURNS int LANGUAGE sql AS $$ update x set y = 1; select 1 $$',
  'CREATE INDEX "i" ON "assay"."sessions" USING btree ("ip") WHERE "state" = \'a;b\'',
  'ALTER TABLE "assay"."sessions" ADD COLUMN "note" text',
  'ALTER TABLE "assay"."sessions" ADD COLUMN "note" numeric(10, 2), ADD COLUMN IF NOT EXISTS "n" integer DEFAULT 0 NOT NULL',
  `ALTER TABLE "assay"."sessions" ADD COLUMN "note" text DEFAULT 'it''s; drop' NOT NULL;--> statement-breakpoint\n`,
  `ALTER TABLE "assay"."sessions" ADD COLUMN "on" boolean DEFAULT false NOT NULL -- DROP TABLE "assay"."sessions"`,
  `ALTER TABLE "assay"."sessions" ADD COLUMN "list" jsonb DEFAULT '[]'::jsonb NOT NULL`,
  `ALTER TABLE "assay"."sessions" ADD COLUMN "a" text; ALTER TABLE "assay"."sessions" ADD CONSTRAINT "c" CHECK ("assay"."sessions"."a" in ('b', 'c'))`,
  'ALTER TABLE "assay"."sessions" ADD COLUMN "a" bytea; ALTER TABLE "assay"."sessions" ADD CONSTRAINT "c" UNIQUE("a")',
  'ALTER TABLE "assay"."sessions" ADD COLUMN "a" text; CREATE UNIQUE INDEX "i" ON "assay"."sessions" USING btree ("a")',
  'ALTER TABLE "assay"."sessions" ADD COLUMN "a" text; ALTER TABLE "assay"."sessions" ADD CONSTRAINT "f" FOREIGN KEY ("a") REFERENCES "assay"."customers"("id") ON DELETE cascade',
  'ALTER TABLE "assay"."sessions" ADD COLUMN "by" text REFERENCES "assay"."customers"("id") ON DELETE set null',
]

const DOES_NOT: Record<string, string> = {
  'drops a table': 'DROP TABLE "assay"."sessions"',
  'drops a column': 'ALTER TABLE "assay"."sessions" DROP COLUMN "ip"',
  'drops a column beside one that it adds':
    'ALTER TABLE "assay"."sessions" ADD COLUMN "a" text, DROP COLUMN "ip"',
  'drops an index': 'DROP INDEX "assay"."sessions_subject"',
  'renames a column': 'ALTER TABLE "assay"."sessions" RENAME COLUMN "ip" TO "address"',
  'renames a table': 'ALTER TABLE "assay"."sessions" RENAME TO "seances"',
  'changes a type': 'ALTER TABLE "assay"."sessions" ALTER COLUMN "gen" SET DATA TYPE bigint',
  'forbids null': 'ALTER TABLE "assay"."sessions" ALTER COLUMN "ip" SET NOT NULL',
  'drops a default': 'ALTER TABLE "assay"."sessions" ALTER COLUMN "gen" DROP DEFAULT',
  'adds a column that other versions must fill':
    'ALTER TABLE "assay"."sessions" ADD COLUMN "a" text NOT NULL',
  'widens a check, as far as can be seen':
    'ALTER TABLE "assay"."revocations" DROP CONSTRAINT "revocations_kind"',
  'rewrites the table':
    'ALTER TABLE "assay"."sessions" ADD COLUMN "a" timestamptz DEFAULT assay.now() NOT NULL',
  'adds a unique column with a default': `ALTER TABLE "assay"."sessions" ADD COLUMN "a" text DEFAULT '' UNIQUE`,
  'adds a constraint on rows that other versions write':
    'ALTER TABLE "assay"."sessions" ADD CONSTRAINT "c" CHECK ("gen" < 100)',
  'adds a constraint against null': `ALTER TABLE "assay"."sessions" ADD COLUMN "a" text; ALTER TABLE "assay"."sessions" ADD CONSTRAINT "c" CHECK ("a" is not null)`,
  'adds a constraint on new and old columns together':
    'ALTER TABLE "assay"."sessions" ADD COLUMN "a" integer; ALTER TABLE "assay"."sessions" ADD CONSTRAINT "c" CHECK ("assay"."sessions"."a" < "assay"."sessions"."gen")',
  'makes a column with a default unique':
    'ALTER TABLE "assay"."sessions" ADD COLUMN "a" integer DEFAULT 0; ALTER TABLE "assay"."sessions" ADD CONSTRAINT "c" UNIQUE("a")',
  'counts null as a value':
    'ALTER TABLE "assay"."sessions" ADD COLUMN "a" text; ALTER TABLE "assay"."sessions" ADD CONSTRAINT "c" UNIQUE NULLS NOT DISTINCT ("a")',
  'makes a column that other versions write unique': 'CREATE UNIQUE INDEX "i" ON "assay"."sessions" ("ip")',
  'keeps other versions from deleting rows':
    'CREATE TABLE "assay"."a" ("b" text REFERENCES "assay"."customers"("id"), "c" text REFERENCES "assay"."a"("b") ON DELETE cascade)',
  'changes rows': `UPDATE "assay"."sessions" SET "ip" = NULL`,
  'deletes rows': 'DELETE FROM "assay"."audit_events"',
  'adds rows that other versions read': 'INSERT INTO "assay"."change_feed" DEFAULT VALUES',
  'changes a function': `CREATE OR REPLACE FUNCTION assay.now() RETURNS timestamptz LANGUAGE sql AS ''`,
  'drops a table after a permitted statement': 'CREATE SEQUENCE "assay"."a"; DROP TABLE "assay"."sessions"',
  'drops a table in a block': 'DO $$ begin drop table assay.sessions; end $$',
  'divides a table':
    'CREATE TABLE "assay"."p" PARTITION OF "assay"."audit_events" FOR VALUES FROM (\'a\') TO (\'b\')',
}

describe('the rule', () => {
  test.each(ADDS)('permits %s', text => {
    expect(notAdditive(text, [])).toEqual([])
  })

  test.each(Object.entries(DOES_NOT))('reports a migration that %s', (_, text) => {
    expect(notAdditive(text, ['0.1.0'])).toHaveLength(1)
  })

  const drop = 'ALTER TABLE "assay"."sessions" DROP COLUMN "ip";\n'
  test.each([
    [
      'with a reason, for a version that is out',
      '-- Fits 0.1.0: it reads and writes sessions.ip no more.\n',
      0,
    ],
    ['without a reason', '-- Fits 0.1.0: \n', 1],
    ['for a version that is not out', '-- Fits 0.2.0: it reads and writes sessions.ip no more.\n', 1],
    ['for another statement', '-- Fits 0.1.0: so it is.\nCREATE SEQUENCE "assay"."a";\n', 1],
    ['in a literal', `ALTER TABLE "assay"."sessions" ADD COLUMN "a" text DEFAULT '-- Fits 0.1.0: so';\n`, 1],
  ])('permits an exception or not: a note %s', (_, note, named) => {
    expect(notAdditive(note + drop, ['0.1.0'])).toHaveLength(named)
  })
})
