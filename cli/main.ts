#!/usr/bin/env node
// First: it handles signals while the other modules are loaded.
import '../server/shutdown.ts'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Api } from './client.ts'
import { type Command, CommandError, EXIT } from './command.ts'
import { COMMANDS } from './commands.ts'
import { help, helpOf, optionsOf } from './help.ts'
import { asJson } from './output.ts'
import { terminal } from './terminal.ts'

/** `assay COMMAND`: finds the command, runs it, and ends with a code that says how it went. */
async function main(words: string[]): Promise<void> {
  const command = find(words)
  if (command === undefined) return explainUsage(words)
  const rest = words.slice(command.name.split(' ').length)
  const { values, positionals } = parse(command, rest)
  if (values.help) return terminal.out(`${helpOf(command)}\n`)
  const args = needed(command, positionals)
  const shown = await command.run({ args, options: values, api: apiOf(process.env), terminal })
  if (shown) terminal.out(`${values.json ? asJson(shown.json) : shown.text}\n`)
}

const find = ([first, second]: string[]): Command | undefined =>
  COMMANDS.find(({ name }) => name === `${first} ${second}`) ?? COMMANDS.find(({ name }) => name === first)

/** Asked for it is an answer; instead of a command it is a mistake. */
function explainUsage(words: string[]) {
  const asked = words.length === 0 || words.some(word => ['help', '--help', '-h'].includes(word))
  const group = COMMANDS.some(({ name }) => name.startsWith(`${words[0]} `)) ? words[0] : undefined
  const text = `${help(COMMANDS, group)}\n`
  if (asked) return terminal.out(text)
  terminal.tell(group === undefined ? `there is no command ${words[0]}\n\n${text}` : text)
  process.exitCode = EXIT.usage
}

interface Parsed {
  values: { readonly [name: string]: string | boolean | undefined }
  positionals: string[]
}

function parse(command: Command, args: string[]): Parsed {
  const options = Object.fromEntries(
    Object.entries(optionsOf(command)).map(([name, { value }]) => [
      name,
      { type: value === undefined ? ('boolean' as const) : ('string' as const) },
    ]),
  )
  const known = { ...options, help: { type: 'boolean', short: 'h' } } as const
  try {
    return parseArgs({ args, options: known, allowPositionals: true }) as Parsed
  } catch (error) {
    throw new CommandError(EXIT.usage, `${(error as Error).message.split('. ')[0]}; ${seeHelp(command)}`)
  }
}

function needed(command: Command, positionals: string[]): string[] {
  const { args = [] } = command
  if (positionals.length === args.length) return positionals
  const wants = args.length === 0 ? 'takes nothing more' : `needs ${args.join(' ')}`
  throw new CommandError(EXIT.usage, `${command.name} ${wants}; ${seeHelp(command)}`)
}

const seeHelp = ({ name }: Command) => `see assay ${name} --help`

function apiOf(env: NodeJS.ProcessEnv): Api {
  return new Api({ url: env.ASSAY_URL || 'http://127.0.0.1:3001', token: () => tokenOf(env) })
}

/** As the server takes it; or what an embedded server made, where it is. */
function tokenOf(env: NodeJS.ProcessEnv): string | undefined {
  if (env.ADMIN_TOKEN) return env.ADMIN_TOKEN
  const file = env.ADMIN_TOKEN_FILE || join(env.DATA_DIR || './data', 'admin.token')
  if (!env.ADMIN_TOKEN_FILE && !existsSync(file)) return undefined
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new CommandError(EXIT.settings, `the operator token in ${file} can't be read (${code})`)
  }
}

main(process.argv.slice(2)).catch(error => {
  // Somebody ended a question with Ctrl-C or Ctrl-D.
  if (error?.code === 'ABORT_ERR') process.exit(EXIT.interrupted)
  if (!(error instanceof CommandError)) throw error
  terminal.tell(`assay: ${error.message}\n`)
  process.exitCode = error.code
})
