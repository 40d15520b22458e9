import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { COMMANDS } from './commands.ts'
import { markdown } from './help.ts'

/** `npm run docs`: writes docs/cli.md, which a test holds to the program. */
writeFileSync(join(import.meta.dirname, '../docs/cli.md'), markdown(COMMANDS))
