import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, readdirSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { NODE_COMPILE_CACHE } from './process.ts'

/** Pastes commands of pages into a terminal, where `assay` is the command line. */

const ROOT = join(import.meta.dirname, '../..')

/** Makes a folder a checkout without secrets and data: deploy/ is a copy, everything else is a link. */
export function linkCheckout(folder: string) {
  const others = readdirSync(ROOT).filter(name => !/^\.|^deploy$|^data$/.test(name))
  for (const name of others) symlinkSync(join(ROOT, name), join(folder, name))
  const isPublic = (file: string) => basename(file) !== 'secrets'
  cpSync(join(ROOT, 'deploy'), join(folder, 'deploy'), { recursive: true, filter: isPublic })
}

interface Terminal {
  cwd: string
  settings: Record<string, string>
  /** The words to type when a command asks for a confirmation, in this order. */
  words?: string[]
}

/** Runs `assay` without npm, which takes most of a command's time. */
const ALIAS = `alias assay='${process.execPath} ${join(ROOT, 'cli/main.ts')}'`

/** Runs the commands and returns what the terminal shows. Throws if one of them fails or a word is not asked for. */
export async function paste(commands: string, { cwd, settings, words = [] }: Terminal): Promise<string> {
  const { PATH, HOME } = process.env
  const shell = 'exec bash -O expand_aliases -eo pipefail -c "$COMMANDS"'
  // The terminal has no height, so psql would page every table.
  const own = { PAGER: 'cat', npm_config_update_notifier: 'false', NODE_COMPILE_CACHE }
  const env = { PATH, HOME, ...own, COMMANDS: `${ALIAS}\n${commands}`, ...settings }
  const child = spawn('script', ['-qec', shell, '/dev/null'], { cwd, env })
  onTestFinished(() => void child.kill())
  let shown = ''
  const waiting = [...words]
  child.stdout.setEncoding('utf8').on('data', chunk => {
    shown += chunk
    const asked = shown.split('to confirm: ').length - 1
    while (words.length - waiting.length < asked) child.stdin.write(`${waiting.shift() ?? ''}\n`)
  })
  const [code] = await once(child, 'close')
  if (code !== 0 || waiting.length > 0) throw new Error(`the commands ended with ${code}: ${shown}`)
  return shown
}
