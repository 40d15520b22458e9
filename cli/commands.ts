import { audit } from './audit.ts'
import type { Command } from './command.ts'
import { completion } from './completion.ts'
import { customers } from './customers.ts'
import { doctor } from './doctor.ts'
import { explain } from './explain.ts'
import { keys } from './keys.ts'
import { policies } from './policies.ts'
import { secrets } from './secrets.ts'
import { servers } from './servers.ts'
import { serving } from './serving.ts'
import { sessions } from './sessions.ts'
import { status } from './status.ts'
import { token } from './token.ts'

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
  ...audit,
  ...explain,
  ...token,
  completion(() => COMMANDS),
]
