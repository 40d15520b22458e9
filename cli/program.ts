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
  .description('Run and manage an Assay server.')
  .version(VERSION, '-V, --version', 'show the version')
  .helpCommand('help [command]', 'show help for a command')
  .addHelpText(
    'after',
    `
Commands speak to the server at ASSAY_URL (http://127.0.0.1:3001) as an
operator. The operator token is ADMIN_TOKEN, or in the file that
ADMIN_TOKEN_FILE names, or the one in ./data that an embedded server made.
serve, migrate and doctor need no running server.`,
  )

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
