import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** The path of an installed program, or undefined. In CI a missing program is an error: nothing is skipped there. */
export function findProgram(name: string): string | undefined {
  const path = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin']
  const found = path.map(folder => join(folder, name)).find(file => existsSync(file))
  if (!found && process.env.CI) throw new Error(`${name} is not installed, and CI skips nothing`)
  return found
}
