import type { Command } from './command.ts'
import { keys } from './commands/api-keys.ts'
import { audit } from './commands/audit.ts'
import { customers } from './commands/customers.ts'
import { doctor } from './commands/doctor.ts'
import { explain } from './commands/explain.ts'
import { policies } from './commands/policies.ts'
import { servers } from './commands/resource-servers.ts'
import { revoke } from './commands/revoke.ts'
import { serving } from './commands/serve.ts'
import { sessions } from './commands/sessions.ts'
import { secrets } from './commands/signing-keys.ts'
import { status } from './commands/status.ts'
import { token } from './commands/token.ts'
import { completion } from './completion.ts'

/** In the order of help. */
export const COMMANDS: Command[] = [
  ...serving,
  ...status,
  ...doctor,
  ...customers,
  ...policies,
  ...keys,
  ...servers,
  ...secrets,
  ...sessions,
  ...revoke,
  ...audit,
  ...explain,
  ...token,
  completion(() => COMMANDS),
]
