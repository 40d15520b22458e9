import { VERSION } from '../server/lib/version.ts'
import { AssayCommand } from './command.ts'
import { keys } from './commands/api-keys.ts'
import { audit } from './commands/audit.ts'
import { clock } from './commands/clock.ts'
import { completion } from './commands/completion.ts'
import { customers } from './commands/customers.ts'
import { doctor } from './commands/doctor.ts'
import { explain } from './commands/explain.ts'
import { exportSubject } from './commands/export-subject.ts'
import { migrate } from './commands/migrate.ts'
import { revoke } from './commands/revoke.ts'
import { serve } from './commands/serve.ts'
import { services } from './commands/services.ts'
import { sessions } from './commands/sessions.ts'
import { secrets } from './commands/signing-keys.ts'
import { status } from './commands/status.ts'
import { token } from './commands/token.ts'

/** The whole command line. The order is that of its help. */
export const program = new AssayCommand('assay')
  .usage('[--help | --version] <command>')
  .version(VERSION, '-V, --version', 'show the version')
  .helpCommand('help [command]', 'Show help for a command.')
  .addHelpText(
    'after',
    `
ASSAY_URL is the server's URL (default: http://127.0.0.1:3001). The operator
token is ADMIN_TOKEN, or in ADMIN_TOKEN_FILE (default: DATA_DIR/admin.token).
serve, migrate and doctor need no running server.`,
  )
// A line for each command: the options are in the usage, and the arguments in each command's own help.
program.configureHelp({
  ...program.configureHelp(),
  subcommandTerm: command => command.name(),
  visibleOptions: () => [],
})

const commands = [
  serve,
  migrate,
  status,
  doctor,
  customers,
  keys,
  services,
  secrets,
  sessions,
  revoke,
  exportSubject,
  audit,
  clock,
  explain,
  token,
  completion,
]
for (const command of commands) program.addCommand(command)

/** What `assay` prints without arguments: the commands that people need first. */
export const FIRST_HELP = `Assay issues, verifies and revokes JWTs with separate secrets for each customer.

  assay serve                     start a server
  assay customers create <email>  create a customer, and show its API key
  assay token                     issue an access token with that API key
  assay revoke                    revoke a token, or all of a user or a customer
  assay doctor                    find out what is wrong, and how to fix it

assay help shows all commands, and assay help <command> explains one.
`

/**
 * Rewrites `help customers list` as `customers list --help`, because commander's `help` reads only one name. Removes a request
 * for help about a command that doesn't exist, as in `help custmers`, so that commander reports the mistake. It would show the
 * general help.
 */
export function resolveHelp(words: string[]): string[] {
  const isHelp = words[0] === 'help'
  const names = isHelp ? words.slice(1) : words
  let command: AssayCommand = program
  for (const [n, name] of names.entries()) {
    if (name.startsWith('-') || command.commands.length === 0) break
    const next = (command.commands as AssayCommand[]).find(each => each.name() === name)
    if (next === undefined) return name === 'help' ? words : names.slice(0, n + 1)
    command = next
  }
  return isHelp ? [...command.path(), '--help'] : words
}
