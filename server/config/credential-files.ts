import type { Log } from '../lib/logger.ts'
import {
  type Config,
  ConfigError,
  CREDENTIAL_SETTINGS,
  type CredentialSetting,
  type Credentials,
  parseCredentials,
} from './load.ts'
import { readSecret } from './read-secret.ts'

/** A change takes effect at the second reading, so within 10 s (ms). */
const READ_INTERVAL_MS = 3_000

type Texts = Partial<Record<CredentialSetting, string>>

export interface CredentialFilesOptions {
  config: Pick<Config, 'secretFiles' | 'credentialTexts' | 'masterKeys'> & Credentials
  /** Called with all credentials when those of a file have changed. */
  apply(credentials: Credentials): void
  log: Log
}

/**
 * Reads the files of operators' tokens and of services' secrets again while the server runs. A file that is
 * missing, empty or malformed changes nothing: what was read before stays in force.
 */
export class CredentialFiles {
  readonly #options: CredentialFilesOptions
  #texts: Texts
  #credentials: Credentials
  /** The texts that the last reading found. A text is used once two readings agree, because an editor may be writing. */
  readonly #seen = new Map<CredentialSetting, string>()
  #problems = ''
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(options: CredentialFilesOptions) {
    this.#options = options
    this.#texts = options.config.credentialTexts
    this.#credentials = options.config
  }

  /** Resolves once the files are in force, which may have changed since the settings were loaded. */
  async start(): Promise<void> {
    await this.read()
    await this.read()
    this.#schedule()
  }

  #schedule() {
    const { secretFiles } = this.#options.config
    if (this.#stopped || CREDENTIAL_SETTINGS.every(name => secretFiles[name] === undefined)) return
    const readAgain = () => this.read().then(() => this.#schedule())
    this.#timer = setTimeout(readAgain, READ_INTERVAL_MS).unref()
  }

  stop() {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  /** Reads every file once. Never throws. */
  async read(): Promise<void> {
    const problems: string[] = []
    const texts = { ...this.#texts }
    for (const name of CREDENTIAL_SETTINGS) {
      const path = this.#options.config.secretFiles[name]
      if (path === undefined) continue
      const { text, problem } = await readSecret(path)
      if (problem !== undefined) problems.push(`${name}_FILE: ${problem}`)
      else if (this.#isSeenAgain(name, text)) problems.push(...this.#take(texts, name, text))
    }
    if (!this.#stopped) this.#replace(texts, problems)
  }

  #isSeenAgain(name: CredentialSetting, text: string): boolean {
    const isSame = this.#seen.get(name) === text
    this.#seen.set(name, text)
    return isSame
  }

  /** Uses one file's text, unless it conflicts with the other credentials in force. Returns the problems. */
  #take(texts: Texts, name: CredentialSetting, text: string): string[] {
    if (texts[name] === text) return []
    try {
      parseCredentials({ ...texts, [name]: text }, this.#options.config.masterKeys)
      texts[name] = text
      return []
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      return error.problems.map(problem => `${name}_FILE: ${problem}`)
    }
  }

  #replace(texts: Texts, problems: string[]) {
    this.#tell(problems)
    if (CREDENTIAL_SETTINGS.every(name => texts[name] === this.#texts[name])) return
    const before = this.#credentials
    this.#texts = texts
    this.#credentials = parseCredentials(texts, this.#options.config.masterKeys)
    this.#options.apply(this.#credentials)
    this.#options.log.info(
      {
        operators: difference(operatorsIn(before), operatorsIn(this.#credentials)),
        services: difference(servicesIn(before), servicesIn(this.#credentials)),
      },
      'credentials were reloaded from their files',
    )
  }

  /** Logs why files can't be used. A problem that stays the same is logged once. */
  #tell(problems: string[]) {
    const reported = this.#problems
    this.#problems = problems.join('\n')
    if (this.#problems === reported) return
    if (problems.length > 0)
      this.#options.log.warn({ problems }, "credentials can't be reloaded; the previous ones stay in use")
    else this.#options.log.info('all credential files can be reloaded again')
  }
}

type Digests = Map<string, string>

/** By operator's name, a text of the operator's rights and token, to be compared. The name of ADMIN_TOKEN is `admin`. */
const operatorsIn = ({ adminToken, operators }: Credentials): Digests =>
  new Map([
    ['admin', adminToken] as const,
    ...operators.map(
      ({ name, readOnly, digest }) => [name, `${readOnly} ${digest.toString('hex')}`] as const,
    ),
  ])

/** By service's name, a text of the service's rights and secret, to be compared. */
const servicesIn = ({ services }: Credentials): Digests =>
  new Map(services.map(({ name, may, digest }) => [name, `${may.join('+')} ${digest.toString('hex')}`]))

/** Returns only names, because the values contain digests. */
function difference(before: Digests, after: Digests) {
  const names = [...new Set([...before.keys(), ...after.keys()])]
  return {
    added: names.filter(name => !before.has(name)),
    removed: names.filter(name => !after.has(name)),
    changed: names.filter(
      name => before.has(name) && after.has(name) && before.get(name) !== after.get(name),
    ),
  }
}
