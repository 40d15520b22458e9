import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createSettingsReference } from '../server/config/reference.ts'
import { program } from './program.ts'
import { createReference } from './reference.ts'

/** `npm run docs`: writes docs/cli.md and docs/settings.md. Tests compare them with the program and its settings. */
const DOCS = join(import.meta.dirname, '../docs')
writeFileSync(join(DOCS, 'cli.md'), createReference(program))
writeFileSync(join(DOCS, 'settings.md'), createSettingsReference())
