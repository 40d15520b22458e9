import { SETTINGS, type SettingName } from './schema.ts'

export type Environment = Record<string, string | undefined>
export type ReadFile = (path: string) => string

/** The settings as the operator wrote them, before they are parsed. */
export function readTexts(env: Environment, readFile: ReadFile) {
  const texts: Partial<Record<SettingName, string>> = {}
  /** Settings that couldn't be read at all; their text is empty, so that they count as set. */
  const unread = new Map<SettingName, string>()
  for (const setting of SETTINGS) {
    const { text, problem } = readText(setting, env, readFile)
    if (text !== undefined) texts[setting.name] = text
    if (problem !== undefined) unread.set(setting.name, problem)
  }
  return { texts, unread }
}

type Outcome = { text?: string | undefined; problem?: string }

function readText(
  { name, secret }: (typeof SETTINGS)[number],
  env: Environment,
  readFile: ReadFile,
): Outcome {
  // An empty string is unset: that is how a compose file or a shell leaves a variable out.
  const text = env[name] || undefined
  const path = secret ? env[`${name}_FILE`] : undefined
  if (!path) return { text }
  if (text === undefined) return readSecretFile(`${name}_FILE`, path, readFile)
  return {
    text: '',
    problem: `${name}: is set, and ${name}_FILE too; keep one of them, for example ${name}_FILE`,
  }
}

function readSecretFile(name: string, path: string, readFile: ReadFile): Outcome {
  const example = 'name a readable file with the secret in it, for example /run/secrets/assay'
  try {
    const text = readFile(path).replace(/\r?\n$/, '')
    return text === '' ? { text, problem: `${name}: ${shown(path)} is empty; ${example}` } : { text }
  } catch (error) {
    const { code = 'unreadable' } = error as NodeJS.ErrnoException
    return { text: '', problem: `${name}: can't read ${shown(path)} (${code}); ${example}` }
  }
}

// A value that doesn't look like a path may be the secret itself, put into the wrong variable.
function shown(path: string): string {
  return /^\.{0,2}\//.test(path) ? path : 'the file it names'
}
