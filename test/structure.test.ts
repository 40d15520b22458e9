import { globSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { createSettingsReference } from '../server/config/reference.ts'
import { SETTINGS } from '../server/config/schema.ts'

/** Rules of the layout that no compiler checks: dependencies go one way, http -> domain -> db, with crypto at the bottom. */

const ROOT = join(import.meta.dirname, '..')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')

const files = globSync('{server,db}/**/*.ts', { cwd: ROOT }).sort()

/** The code without comments and without the contents of single quotes. */
const codeOf = (file: string) => withoutComments(read(file)).replace(/'(?:[^'\\\n]|\\.)*'/g, "''")

const withoutComments = (text: string) =>
  text.replace(/\/\*.*?\*\//gs, '').replace(/^\s*\/\/.*$|\s\/\/ .*$/gm, '')

interface Import {
  from: string
  /** The path of one of our files from the root, or the name of a package or Node module. */
  of: string
}

const IMPORT =
  /^(?:import|export)\b[^';]*?\bfrom\s+'([^'\n]+)'|^import\s+'([^'\n]+)'|\bimport\(\s*['"`]([^'"`\n]+)/gm

function importsOf(from: string): Import[] {
  const specifiers = [...withoutComments(read(from)).matchAll(IMPORT)].map(match => match.slice(1).join(''))
  return specifiers.map(specifier => ({ from, of: resolved(from, specifier) }))
}

const resolved = (from: string, specifier: string) =>
  specifier.startsWith('.') ? relative(ROOT, join(ROOT, from, '..', specifier)) : specifier

const isFile = (of: string) => of.endsWith('.ts')

/** Imports that load immediately: `import type` is erased, and import() loads later. */
const LOADED = /^(?:import|export)\s+(?!type\b)[^';]*?\bfrom\s+'([^'\n]+)'|^import\s+'([^'\n]+)'/gm

/** Everything that a file loads: all our files and packages that are reachable from it. */
function loadedBy(file: string, seen = new Set<string>()): string[] {
  for (const match of withoutComments(read(file)).matchAll(LOADED)) {
    const of = resolved(file, match.slice(1).join(''))
    if (seen.has(of)) continue
    seen.add(of)
    if (isFile(of)) loadedBy(of, seen)
  }
  return [...seen]
}

const imports = files.flatMap(importsOf)

type Layer = 'errors' | 'crypto' | 'jwt' | 'lib' | 'db' | 'domain' | 'http' | 'routes' | 'wiring'

/** The folders of the domain, and its files outside a folder. */
const DOMAIN =
  /^server\/(audit|clients|config|customers|embedded|keys|revocation|tokens)\/|^server\/(services|jobs|shutdown|open-database|exit)\.ts$/

function layerOf(file: string): Layer {
  if (file === 'server/lib/errors.ts') return 'errors'
  const [, folder] = /^server\/(crypto|jwt|lib|http|routes)\//.exec(file) ?? []
  if (folder !== undefined) return folder as Layer
  if (file.startsWith('db/')) return 'db'
  return DOMAIN.test(file) ? 'domain' : 'wiring'
}

const MAY_IMPORT: Record<Layer, Layer[]> = {
  errors: [],
  crypto: ['crypto'],
  jwt: ['errors', 'crypto', 'jwt'],
  db: ['errors', 'db'],
  lib: ['errors', 'crypto', 'db', 'lib'],
  domain: ['errors', 'crypto', 'jwt', 'lib', 'db', 'domain'],
  http: ['errors', 'crypto', 'jwt', 'lib', 'domain', 'http'],
  routes: ['errors', 'crypto', 'jwt', 'lib', 'domain', 'http', 'routes'],
  wiring: ['errors', 'crypto', 'jwt', 'lib', 'db', 'domain', 'http', 'routes', 'wiring'],
}

const DRIVERS = /^(postgres|redis|@redis\/.*|@electric-sql\/pglite|drizzle-orm)(\/|$)/
const SERVER = /^node:http$/
const HONO = /^hono(\/|$)/

/** The imports that break the rule, as `from imports of`. */
const against = (rule: (from: Layer, of: string) => boolean) =>
  imports.filter(({ from, of }) => rule(layerOf(from), of)).map(({ from, of }) => `${from} imports ${of}`)

describe('the import rule', () => {
  test('every import is found, including type imports, and refers to an existing file', () => {
    const begun = files.flatMap(
      file => read(file).match(/^(import|export \{|export type \{|export \*).*|\bimport\(/gm) ?? [],
    )
    const exports = begun.filter(line => line.startsWith('export') && !line.includes(' from '))
    expect(imports.length).toBe(begun.length - exports.length)
    expect(imports.map(({ of }) => of).filter(of => isFile(of) && !files.includes(of))).toEqual([])
    for (const layer of Object.keys(MAY_IMPORT)) expect(files.map(layerOf)).toContain(layer)
  })

  test('http depends on the domain, the domain on the database, and never the other way round', () => {
    expect(against((from, of) => isFile(of) && !MAY_IMPORT[from].includes(layerOf(of)))).toEqual([])
  })

  test('drivers are used only in db, and node:http only in http and the wiring', () => {
    expect(against((from, of) => from !== 'db' && DRIVERS.test(of))).toEqual([])
    expect(against((from, of) => !['http', 'routes', 'wiring'].includes(from) && SERVER.test(of))).toEqual([])
  })

  test('only http, routes and the app import Hono, and only the file that listens imports its adapter', () => {
    const allowed = (from: Layer) => from === 'http' || from === 'routes'
    const known = imports.filter(({ from, of }) => HONO.test(of) && !allowed(layerOf(from)))
    expect([...new Set(known.map(({ from }) => from))]).toEqual(['server/app.ts'])
    const adapter = imports.filter(({ of }) => of.startsWith('@hono/node-server'))
    expect(adapter.map(({ from }) => from)).toEqual(['server/listen.ts'])
  })

  test('one file imports OpenTelemetry, and only its API', () => {
    const known = imports.filter(({ of }) => of.startsWith('@opentelemetry/'))
    expect([...new Set(known.map(({ from, of }) => `${from} imports ${of}`))]).toEqual([
      'server/lib/tracing.ts imports @opentelemetry/api',
    ])
  })

  test('only the database client loads the embedded database', () => {
    expect(imports.filter(({ of }) => of === 'db/pglite.ts').map(({ from }) => from)).toEqual([
      'db/client.ts',
    ])
    expect(read('db/client.ts')).toContain("import('./pglite.ts')")
  })

  test('one file loads drizzle, as CommonJS; no other file imports it, not even its types', () => {
    const loading = (text: string) => /(['"`])drizzle-orm(\/[^'"`]*)?\1/.test(text)
    const all = globSync('{server,db,cli,test,faults,bench,deploy}/**/*.ts', { cwd: ROOT })
    expect(all.filter(file => loading(withoutComments(read(file))))).toEqual(['db/drizzle.ts'])
    const values = imports.filter(({ of }) => /^drizzle-orm(\/|$)/.test(of))
    const types = withoutComments(read('db/drizzle.ts')).match(/^export type .* from|typeof import\(/gm)
    expect(values.length).toBe(types!.length)
  })

  test('only the statements and the check at the start import the schema', () => {
    const known = imports.filter(({ of }) => of.startsWith('db/schema/')).map(({ from }) => from)
    expect(new Set(known.filter(from => !/^db\/(schema|queries)\//.test(from)))).toEqual(
      new Set(['db/schema-check.ts']),
    )
  })

  test('crypto only computes: it imports crypto, compression, CPU count and threads of Node, and one package', () => {
    const known = ['node:crypto', 'node:zlib', 'node:os', 'node:worker_threads', '@node-rs/argon2']
    expect(against((from, of) => from === 'crypto' && !isFile(of) && !known.includes(of))).toEqual([])
  })

  test('the errors import nothing', () => {
    expect(imports.filter(({ from }) => from === 'server/lib/errors.ts')).toEqual([])
  })

  test('the command line uses HTTP: only the doctor, the commands that serve or migrate, and main import the server', () => {
    const inside = /(from |import\(?)\s*'(\.\.\/)+(server|db)\//
    const knowing = globSync('cli/**/*.ts', { cwd: ROOT }).filter(file => inside.test(read(file)))
    expect(knowing.sort()).toEqual([
      'cli/commands/migrate.ts',
      'cli/commands/serve.ts',
      'cli/docs.ts',
      'cli/doctor/checks/database.ts',
      'cli/doctor/checks/redis.ts',
      'cli/doctor/checks/settings.ts',
      'cli/doctor/checks/transactions.ts',
      'cli/doctor/checks/writes.ts',
      'cli/main.ts',
      'cli/program.ts',
    ])
  })

  test('there are no barrels', () => {
    expect(globSync('{server,db,test}/**/index.{ts,js}', { cwd: ROOT })).toEqual([])
    expect(files.filter(file => /^export \* /m.test(codeOf(file)))).toEqual([])
  })
})

/** All files except `but` whose code matches the pattern. */
const filesWith = (pattern: RegExp, ...but: string[]) =>
  files.filter(file => !but.includes(file) && pattern.test(codeOf(file)))

describe('capabilities are passed', () => {
  test('only main.ts reads the environment and the clocks', () => {
    const environment = /\bprocess\.(env|argv)\b|\bimport\.meta\.env\b/
    expect(filesWith(environment, 'server/main.ts')).toEqual([])
    const clocks =
      /\bDate\.now\b|\bDate\(\s*\)|\bnew Date\b(?!\()|\bperformance\b|\bhrtime\b|\bprocess\.uptime\b/
    expect(filesWith(clocks, 'server/main.ts')).toEqual([])
  })

  test('only main.ts and a worker check which process this is', () => {
    expect(filesWith(/\bcluster\.(isPrimary|isWorker|worker)\b/)).toEqual([
      'server/main.ts',
      'server/workers/worker.ts',
    ])
    expect(filesWith(/\bcluster\.fork\b/)).toEqual(['server/workers/process.ts'])
  })

  test('only listen.ts opens a socket to listen on', () => {
    expect(filesWith(/\bcreate(Adaptor)?Server\(/)).toEqual(['server/listen.ts'])
  })

  test('files that are served are read on request, not at the start', () => {
    expect(filesWith(/\breadFileSync\(/).filter(file => /^server\/(http|routes)\//.test(file))).toEqual([])
  })

  test('a refused start, a migration and a primary load neither a route nor Hono', () => {
    const loaded = loadedBy('server/main.ts')
    expect(loaded).toContain('db/postgres.ts')
    expect(loaded.filter(of => /^server\/(http|routes)\/|^server\/app\.ts$|^hono/.test(of))).toEqual([])
  })

  test('in SQL the time comes from one function of ours', () => {
    const statements = globSync('db/**/*.{ts,sql}', { cwd: ROOT })
    const others =
      /(?<![.\w])now\(\)|clock_timestamp|statement_timestamp|current_(timestamp|date|time)\b|localtime/i
    const telling = statements.filter(file => others.test(withoutComments(read(file))))
    // A wait for a lock is a duration: a clock that a test moves, or the operator sets, does not affect it.
    const measuring = ['db/queries/change-feed.ts']
    expect(telling.sort()).toEqual(['db/migrations/0000_clock.sql', ...measuring])
  })
})

test('an act is one statement: only migrations have a transaction', () => {
  const begins = files.filter(file => /['"`]\s*begin\b/i.test(withoutComments(read(file))))
  expect(begins).toEqual(['db/migrate.ts'])
  expect(filesWith(/\.transaction\(/)).toEqual(['db/pglite.ts'])
  expect(codeOf('db/pglite.ts').match(/\.transaction\(/g)).toHaveLength(1)
})

test('a statement has the name of its constant, and names are unique', () => {
  const declared = files.flatMap(file => [
    ...withoutComments(read(file)).matchAll(/const (\w+) = (?:prepared|query)\(\s*'(\w+)'/g),
  ])
  expect(declared.length).toBeGreaterThan(60)
  expect(declared.filter(([, constant, name]) => constant !== name).map(([text]) => text)).toEqual([])
  const names = files.flatMap(file =>
    [...withoutComments(read(file)).matchAll(/(?<!\.)\b(?:prepared|query|deleteBefore)\(\s*'(\w+)'/g)].map(
      ([, name]) => name,
    ),
  )
  expect(names.length).toBe(declared.length + 5)
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([])
})

test('no file has grown past 320 lines', () => {
  const lines = (file: string) => read(file).split('\n').length - 1
  expect(files.filter(file => lines(file) > 320)).toEqual([])
})

describe('the project is consistent', () => {
  const manifest = JSON.parse(read('package.json'))

  test('the pinned Node is one version on every platform', () => {
    const pins = Object.entries<string>(manifest.optionalDependencies)
    const platforms = pins.map(([name]) => name.replace(/^node-(bin-)?/, '')).sort()
    expect(platforms).toEqual(['darwin-arm64', 'darwin-x64', 'linux-arm64', 'linux-x64'])
    expect(new Set(pins.map(([, version]) => version)).size).toBe(1)
    expect(pins[0]![1]).toMatch(/^26\.\d+\.\d+$/)
    const { packages } = JSON.parse(read('package-lock.json'))
    for (const [name, version] of pins) expect(packages[`node_modules/${name}`].version).toBe(version)
  })

  test('openapi.yaml is of this version', () => {
    expect(parse(read('openapi.yaml')).info.version).toBe(manifest.version)
  })

  test('the SDK of docs/observing.md is the one that the tests load, with the API that is used here', () => {
    const { packages } = JSON.parse(read('package-lock.json'))
    const named = read('docs/observing.md').matchAll(/(@opentelemetry\/(?:sdk-node|api))@(\S+)/g)
    for (const [, name, version] of named) expect(packages[`node_modules/${name}`].version).toBe(version)
    expect.assertions(2)
  })

  test('the README shows how to start and how to test in its first 15 lines', () => {
    const beginning = read('README.md').split('\n').slice(0, 15).join('\n')
    expect(beginning).toContain('npm ci && npm start')
    expect(beginning).toContain('npm ci && npm test')
  })

  test('the README is short enough to be read', () => {
    expect(read('README.md').length).toBeLessThanOrEqual(9_000)
  })

  test('docs/settings.md is what the settings say of themselves (npm run docs)', () => {
    expect(read('docs/settings.md')).toBe(createSettingsReference())
    expect(createSettingsReference().match(/^\| `[A-Z]/gm)).toHaveLength(SETTINGS.length)
    for (const { name, about } of SETTINGS) expect(`${name}: ${about}`).toMatch(/: [A-Z`][^|]{20,}\.$/)
  })
})
