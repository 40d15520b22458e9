import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MIGRATIONS } from './migrations.ts'

const ROOT = join(import.meta.dirname, '../..')

export interface NextVersion {
  version: string
  /** The path of its server/main.ts. */
  main: string
  remove(): void
}

/**
 * A later version in its own folder: this tree with a higher version number and one more migration, which makes every
 * permitted kind of change to every table.
 */
export function makeNextVersion(): NextVersion {
  const folder = mkdtempSync(join(tmpdir(), 'assay-next-'))
  for (const part of ['server', 'db', 'openapi.yaml', 'package.json'])
    cpSync(join(ROOT, part), join(folder, part), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  const version = raiseVersion(join(folder, 'package.json'))
  addMigration(join(folder, 'db/migrations'))
  return { version, main: join(folder, 'server/main.ts'), remove: () => rmSync(folder, { recursive: true }) }
}

const readJson = (file: string) => JSON.parse(readFileSync(file, 'utf8'))

function raiseVersion(file: string): string {
  const manifest = readJson(file)
  const [major, minor] = manifest.version.split('.').map(Number)
  const version = `${major}.${minor + 1}.0`
  writeFileSync(file, JSON.stringify({ ...manifest, version }))
  return version
}

/** Adds a migration as drizzle-kit does, except that its snapshot equals the previous one. */
function addMigration(folder: string) {
  const last = MIGRATIONS.at(-1)!
  const [number, next] = [last.idx, last.idx + 1].map(idx => String(idx).padStart(4, '0'))
  const tag = `${next}_next`
  writeFileSync(join(folder, `${tag}.sql`), NEXT_MIGRATION)
  cpSync(join(folder, `meta/${number}_snapshot.json`), join(folder, `meta/${next}_snapshot.json`))
  const journal = readJson(join(folder, 'meta/_journal.json'))
  journal.entries.push({ ...journal.entries.at(-1), idx: last.idx + 1, when: last.when + 1, tag })
  writeFileSync(join(folder, 'meta/_journal.json'), JSON.stringify(journal))
}

const tables = MIGRATIONS.flatMap(({ text }) =>
  [...text.matchAll(/CREATE TABLE "assay"\."(\w+)" \(/g)].map(([, name]) => name),
)

export const NEXT_MIGRATION = [
  ...tables.map(
    name =>
      `ALTER TABLE "assay"."${name}" ADD COLUMN "next" text DEFAULT 'x' NOT NULL, ADD COLUMN "next2" integer`,
  ),
  'CREATE INDEX "sessions_next" ON "assay"."sessions" USING btree ("next2")',
  `CREATE TABLE "assay"."next" (
    "customer_id" text PRIMARY KEY NOT NULL REFERENCES "assay"."customers"("id") ON DELETE cascade
  )`,
].join(';--> statement-breakpoint\n')
