import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * `npm run -s sbom`: prints a CycloneDX bill of materials of what `npm ci --omit=dev` installs, on any platform. It reads the lock
 * file alone.
 *
 * npm can't do it in one step: `npm sbom --omit dev` drops every production package that a development package needs too
 * (jose, pino, proxy-addr), and it names the application after the checkout's folder.
 */
const ROOT = join(import.meta.dirname, '..')
const read = (file: string) => JSON.parse(readFileSync(join(ROOT, file), 'utf8'))

interface Bom {
  metadata: { component: { name: string; 'bom-ref': string } }
  components: { 'bom-ref': string }[]
  dependencies: { ref: string; dependsOn: string[] }[]
}

const ARGUMENTS = ['--sbom-format=cyclonedx', '--sbom-type=application', '--package-lock-only', '--omit=']

const readBom = (): Bom =>
  JSON.parse(execFileSync('npm', ['sbom', ...ARGUMENTS], { cwd: ROOT, encoding: 'utf8', maxBuffer: 2 ** 25 }))

/** The packages of the lock file that `--omit=dev` keeps, by their `bom-ref`. */
function findProductionRefs(): Set<string> {
  const packages: [string, { version: string; dev?: true }][] = Object.entries(
    read('package-lock.json').packages,
  )
  const kept = packages.filter(([path, { dev }]) => path !== '' && !dev)
  return new Set(kept.map(([path, { version }]) => `${path.replace(/^.*node_modules\//, '')}@${version}`))
}

function createBom(): Bom {
  const bom = readBom()
  const application = bom.metadata.component
  application.name = read('package.json').name
  const refs = findProductionRefs()
  const dependencies = bom.dependencies.filter(({ ref }) => refs.has(ref) || ref === application['bom-ref'])
  return {
    ...bom,
    components: bom.components.filter(component => refs.has(component['bom-ref'])),
    dependencies: dependencies.map(({ ref, dependsOn }) => ({
      ref,
      dependsOn: dependsOn.filter(on => refs.has(on)),
    })),
  }
}

process.stdout.write(`${JSON.stringify(createBom(), undefined, 2)}\n`)
