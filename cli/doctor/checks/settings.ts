import { readFileSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import {
  type Config,
  ConfigError,
  describeMisspelt,
  loadConfig,
  SETTINGS,
} from '../../../server/config/load.ts'
import { type CheckResult, ok, type Report, warning, wrong } from '../result.ts'

/** Returns the settings, or reports what is wrong with them. */
export function settings(env: NodeJS.ProcessEnv, report: Report): Config | undefined {
  try {
    const config = loadConfig(env, path => readFileSync(path, 'utf8'))
    report('settings', ok('well-formed'))
    for (const line of describeMisspelt(env))
      report(
        'settings',
        warning(line.replace(': ', ' '), 'rename or remove it; docs/settings.md lists every setting'),
      )
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const problem of error.problems) {
      const [name, ...rest] = problem.split(': ')
      report(
        'settings',
        wrong(`${name} ${rest.join(': ')}`, `fix ${name}; docs/settings.md lists every setting`),
      )
    }
    return undefined
  }
}

/** Checks the mode of every file that holds a secret. */
export function fileModes(env: NodeJS.ProcessEnv, config: Config | undefined): CheckResult[] {
  const named = SETTINGS.filter(({ secret }) => secret).flatMap(({ name }) => env[`${name}_FILE`] || [])
  const made =
    config?.databaseUrl === undefined
      ? ['master.keys', 'admin.token'].map(name => join(config?.dataDir ?? './data', name))
      : []
  const modes = [...named, ...made].flatMap(path => {
    const mode = readMode(path)
    return mode === undefined ? [] : [{ path, mode }]
  })
  const open = modes.filter(({ path, mode }) => (mode & 0o077) !== 0 && !isShielded(path))
  if (open.length === 0)
    return modes.length === 0 ? [] : [ok(`${modes.length} secret files, readable only by their owner`)]
  return open.map(({ path, mode }) =>
    warning(`${path} can be read by others (mode ${mode.toString(8)})`, `chmod 600 ${path}`),
  )
}

/** Docker mounts secrets here, readable for all: a container has no other users, and its own may not be the owner. */
const MOUNTED_SECRETS = '/run/secrets'

/** Whether a folder above the file keeps others out, whatever the file's own mode (deploy/make-secrets.sh). */
function isShielded(path: string): boolean {
  const folder = dirname(resolve(path))
  if (folder === MOUNTED_SECRETS) return true
  const mode = readMode(folder)
  if (mode !== undefined && (mode & 0o011) === 0) return true
  return folder !== dirname(folder) && isShielded(folder)
}

function readMode(path: string): number | undefined {
  try {
    return statSync(path).mode & 0o777
  } catch {
    return undefined // The file is missing: the settings check reports it, or nothing has been started yet.
  }
}

export function issuer({ issuer }: Config): CheckResult {
  const { protocol, hostname } = new URL(issuer)
  const here = ['localhost', '127.0.0.1', '[::1]'].includes(hostname)
  return protocol === 'https:' || here
    ? ok(issuer)
    : warning(
        `${issuer} is not https`,
        'clients send their credentials there: put a TLS proxy in front of it, and set ISSUER to its https URL',
      )
}
