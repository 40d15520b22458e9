import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { program } from './program.ts'
import { createReference } from './reference.ts'

/** `npm run docs`: writes docs/cli.md. A test compares it with the program. */
writeFileSync(join(import.meta.dirname, '../docs/cli.md'), createReference(program))
