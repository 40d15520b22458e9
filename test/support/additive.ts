/**
 * Checks the rule of docs/decisions/2026-11-23-migrations-only-add.md. Statements that may break another version are
 * reported, unless a comment before the statement says which released version it fits: `-- Fits 0.1.0: it no longer reads
 * sessions.ip.`
 */

interface Statement {
  /** On one line, without comments and with empty literals. */
  code: string
  /** The version that a comment before the statement names. */
  fits: string | undefined
}

/** The parts that are not code: literals, statement ends and comments. */
const PART = /'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|--> statement-breakpoint|;|--[^\n]*|\/\*.*?\*\/|$/gs
const NOTE = /^-- Fits (\d+\.\d+\.\d+): \S/

function statementsOf(text: string): Statement[] {
  const statements: Statement[] = []
  let code = ''
  let fits: string | undefined
  let from = 0
  for (const { 0: part, index } of text.matchAll(PART)) {
    code += text.slice(from, index)
    from = index + part.length
    if (/^(;|-->|$)/.test(part)) {
      statements.push({ code: code.replace(/\s+/g, ' ').trim(), fits })
      code = ''
      fits = undefined
    } else if (/^['$]/.test(part)) code += `''`
    else fits ??= NOTE.exec(part)?.[1]
  }
  return statements.filter(({ code }) => code !== '')
}

const NAME = '(?:"?\\w+"?\\.)?"?(\\w+)"?'
const named = (pattern: string) => new RegExp(`^${pattern.replace('NAME', NAME)}`, 'i')

const NEW_TABLE = named('create table NAME ?\\(')
const NEW_THING = /^create (sequence|type|function) /i
const INDEX = /^create index /i
const UNIQUE_INDEX = named('create unique index \\S+ on NAME')
const ALTER_TABLE = named('alter table (?:only )?NAME ')
const INSERT = named('insert into NAME')
const COLUMN = /^add column (?:if not exists )?"?(\w+)"? /i

/** The tables and columns that a migration creates; no other version uses them. */
interface Made {
  tables: string[]
  /** New columns of existing tables as `table.column`. They are null in rows that other versions write. */
  empty: string[]
}

/** Returns the statements of a migration that the previous version or its rows may not fit. `released`: released versions. */
export function notAdditive(text: string, released: string[]): string[] {
  const statements = statementsOf(text)
  const codes = statements.map(({ code }) => code)
  const made = {
    tables: codes.flatMap(code => NEW_TABLE.exec(code)?.[1] ?? []),
    empty: codes.flatMap(emptyIn),
  }
  return statements
    .filter(({ code, fits }) => !adds(code, made) && !(fits !== undefined && released.includes(fits)))
    .map(({ code }) => code)
}

function emptyIn(code: string): string[] {
  const table = ALTER_TABLE.exec(code)?.[1]
  if (table === undefined) return []
  const columns = actionsOf(code).filter(action => !/ (default|not null)\b/i.test(action))
  return columns.flatMap(action => COLUMN.exec(action)?.[1] ?? []).map(column => `${table}.${column}`)
}

function adds(code: string, made: Made): boolean {
  if (!letsDelete(code, made)) return false
  if (NEW_TABLE.test(code)) return !/ partition of /i.test(code)
  if (NEW_THING.test(code) || INDEX.test(code)) return true
  const table = [UNIQUE_INDEX, ALTER_TABLE, INSERT].map(kind => kind.exec(code)?.[1]).find(Boolean)
  if (table === undefined) return false
  if (made.tables.includes(table)) return true
  if (UNIQUE_INDEX.test(code)) return concernsOnlyEmpty(code, table, made)
  return ALTER_TABLE.test(code) && actionsOf(code).every(action => addsTo(action, table, made))
}

/** A row of a new table must not prevent other versions from deleting the row that it references. */
const letsDelete = (code: string, { tables }: Made) =>
  [
    ...code.matchAll(new RegExp(` references ${NAME}(?: ?\\([^)]*\\))?(.*?)(?=,| references |$)`, 'gi')),
  ].every(([, table, rest]) => tables.includes(table!) || /on delete (cascade|set null)/i.test(rest!))

/** The actions of one ALTER TABLE, split at commas outside parentheses. */
const actionsOf = (code: string) =>
  code
    .replace(ALTER_TABLE, '')
    .split(/,(?![^(]*\))/)
    .map(action => action.trim())

const addsTo = (action: string, table: string, made: Made) =>
  COLUMN.test(action)
    ? addsColumn(action)
    : /^add constraint /i.test(action) && concernsOnlyEmpty(action, table, made)

/** True if rows written by other versions get a value automatically and adding the column does not rewrite the table. */
function addsColumn(action: string): boolean {
  if (/ (unique|primary key|generated) ?/i.test(action)) return false
  const byDefault = / default (.*)/i.exec(action)?.[1]
  if (byDefault === undefined) return !/ not null/i.test(action)
  return /^(''|-?[\d.]+|true|false|null)(::"?\w+"?)?( not null| null|$)/i.test(byDefault)
}

/** True if the constraint only covers columns that are null in other versions' rows, and does not test for null. */
function concernsOnlyEmpty(code: string, table: string, { empty }: Made): boolean {
  const [, about] = /(?:check|unique|foreign key|using \w+|on \S+) ?(\(.*)/i.exec(code) ?? []
  if (about === undefined || / (null|distinct) ?|coalesce/i.test(about.replace(/on delete.*/i, '')))
    return false
  const names = [...about.replace(/ references .*/i, '').matchAll(/"(\w+)"(?!\.)/g)].map(([, name]) => name)
  return names.length > 0 && names.every(name => empty.includes(`${table}.${name}`))
}
