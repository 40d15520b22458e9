import { isSamePlace } from '../../db/connection-url.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import { type Config, parseUrl, type UrlSetting } from './load.ts'
import { readSecret } from './read-secret.ts'

/** A file is read at most this often (ms), however many connections are refused. */
const MIN_INTERVAL_MS = 500

/** Returns the URL with the newest user and password of its file. Never rejects. */
export type Reread = () => Promise<string>

export interface UrlFilesOptions {
  config: Pick<Config, 'secretFiles'>
  clock: Clock
  log: Log
}

/** Reads the files of URLs again when a server refuses their passwords. */
export class UrlFiles {
  readonly #options: UrlFilesOptions
  readonly #readers = new Map<UrlSetting, Reread>()

  constructor(options: UrlFilesOptions) {
    this.#options = options
  }

  /** All connections to one URL share its reader. Undefined if the URL is not from a file. */
  reader(name: UrlSetting, url: string): Reread | undefined {
    const { config, ...own } = this.#options
    const path = config.secretFiles[name]
    if (path === undefined) return undefined
    const known = this.#readers.get(name) ?? reader({ name, path, url, ...own })
    this.#readers.set(name, known)
    return known
  }
}

interface ReaderOptions {
  name: UrlSetting
  path: string
  url: string
  clock: Clock
  log: Log
}

function reader({ name, path, url, clock, log }: ReaderOptions): Reread {
  let current = url
  let reported = ''
  let readAt = Number.NEGATIVE_INFINITY
  let reading: Promise<string> | undefined

  async function read(): Promise<string> {
    if (clock.monotonic() - readAt < MIN_INTERVAL_MS) return current
    const found = await findUrl(name, path, current)
    readAt = clock.monotonic()
    if (found.problem === undefined && found.url !== current) log.info({ setting: name }, TAKEN)
    current = found.url ?? current
    if (found.problem !== undefined && found.problem !== reported)
      log.warn({ problem: found.problem }, NOT_TAKEN)
    reported = found.problem ?? ''
    return current
  }

  return () => {
    reading ??= read().finally(() => {
      reading = undefined
    })
    return reading
  }
}

const TAKEN = 'the server refused a login; now using the new user and password from the file of the URL'
const NOT_TAKEN =
  "the server refused a login, and the file of the URL can't be used; keeping the previous user and password"

async function findUrl(name: UrlSetting, path: string, current: string) {
  const { text, problem } = await readSecret(path)
  if (problem !== undefined) return { problem: `${name}_FILE: ${problem}` }
  if (!parseUrl(name, text)) return { problem: `${name}_FILE: its content is not a valid URL` }
  // Otherwise the state of another database would be mistaken for the state of this one.
  if (!isSamePlace(current, text))
    return { problem: `${name}_FILE: more than the user and the password has changed; restart to apply it` }
  return { url: text }
}
