import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import ajvFormats from 'ajv-formats'
import { beforeAll, expect, test } from 'vitest'

/** The bill of materials that `npm run -s sbom` prints. */

const ROOT = join(import.meta.dirname, '..')
const read = (file: string) => JSON.parse(readFileSync(join(ROOT, file), 'utf8'))
const manifest = read('package.json')
const lock: Record<string, { version: string; integrity?: string; dev?: true }> =
  read('package-lock.json').packages

interface Component {
  name: string
  version: string
  purl: string
  scope: string
  'bom-ref': string
  hashes?: { alg: string; content: string }[]
  licenses?: unknown[]
}
let text: string
let bom: {
  metadata: { component: Component }
  components: Component[]
  dependencies: { ref: string; dependsOn: string[] }[]
}

beforeAll(() => {
  const { PATH, HOME } = process.env
  const env = { PATH, HOME, npm_config_update_notifier: 'false' }
  text = execFileSync('npm', ['run', '-s', 'sbom'], { cwd: ROOT, env, encoding: 'utf8' })
  bom = JSON.parse(text)
})

/** The published schemas: that of CycloneDX 1.5 refers to two others. Formats of e-mail and IRI are left to the reader. */
function createValidator() {
  const file = (name: string) => `${name}.SNAPSHOT.schema.json`
  const schema = (name: string) => read(`node_modules/@cyclonedx/cyclonedx-library/res/schema/${file(name)}`)
  const ajv = new Ajv({
    strict: false,
    allErrors: true,
    formats: { 'iri-reference': true, 'idn-email': true },
  })
  ajvFormats.default(ajv)
  for (const name of ['spdx', 'jsf-0.82']) {
    const { $id, ...definitions } = schema(name)
    ajv.addSchema(definitions, `http://cyclonedx.org/schema/${file(name)}`)
  }
  return ajv.compile(schema('bom-1.5'))
}

const refs = () => bom.components.map(component => component['bom-ref']).sort()

test('it is valid CycloneDX 1.5, and a wrong one would not be', () => {
  const validate = createValidator()
  validate(bom)
  expect(validate.errors).toBeNull()
  expect(validate({ ...bom, components: [{ name: 'no type' }] })).toBe(false)
})

test('it is about this application, whatever the folder is called', () => {
  const { name, version, purl } = bom.metadata.component
  expect([name, version, purl]).toEqual(['assay', manifest.version, `pkg:npm/assay@${manifest.version}`])
})

test('it lists every production dependency of package.json, the optional ones too', () => {
  const listed = bom.components.map(({ name }) => name)
  const wanted = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })
  expect(wanted.filter(name => !listed.includes(name))).toEqual([])
  expect(wanted.length).toBeGreaterThan(15)
})

test('it lists exactly the packages that npm ci --omit=dev installs, with the hashes of the lock file', () => {
  const production = Object.entries(lock).filter(([path, { dev }]) => path !== '' && !dev)
  const name = (path: string) => path.split('node_modules/').at(-1)
  expect(refs()).toEqual(
    [...new Set(production.map(([path, { version }]) => `${name(path)}@${version}`))].sort(),
  )
  for (const [path, { version, integrity }] of production) {
    const component = bom.components.find(one => one['bom-ref'] === `${name(path)}@${version}`)!
    const hex = Buffer.from(integrity!.replace('sha512-', ''), 'base64').toString('hex')
    expect([path, component.hashes]).toEqual([path, [{ alg: 'SHA-512', content: hex }]])
    expect([path, component.licenses?.length]).toEqual([path, 1])
  }
})

test('the pinned Node and the binaries of argon2 are optional, and at one version', () => {
  const pinned = Object.keys(manifest.optionalDependencies)
  const found = bom.components.filter(({ name }) => pinned.includes(name))
  expect(found.map(({ scope, version }) => `${scope} ${version}`)).toEqual(
    pinned.map(() => `optional ${manifest.optionalDependencies[pinned[0]!]}`),
  )
  const binaries = bom.components.filter(({ name }) => name.startsWith('@node-rs/argon2-'))
  expect(binaries.length).toBeGreaterThan(5)
  expect(binaries.filter(({ scope }) => scope !== 'optional')).toEqual([])
})

test('dependencies refer to listed packages only', () => {
  const known = [...refs(), bom.metadata.component['bom-ref']]
  expect(bom.dependencies.map(({ ref }) => ref).sort()).toEqual(known.sort())
  expect(bom.dependencies.flatMap(({ dependsOn }) => dependsOn).filter(ref => !known.includes(ref))).toEqual(
    [],
  )
})

test('it names no registry, so it is the same whichever one the packages came from', () => {
  for (const { purl } of bom.components) expect(purl).toMatch(/^pkg:npm\/[^?#]+@[^?#]+$/)
  expect(text).not.toContain('"distribution"')
  expect(text).not.toMatch(/https?:\/\/(localhost|[\d.]+|\[)/)
  const registry = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' }).trim()
  if (new URL(registry).host !== 'registry.npmjs.org') expect(text).not.toContain(new URL(registry).host)
})
