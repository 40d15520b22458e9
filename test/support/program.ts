import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** Where a program of the system is, or undefined. In CI its absence is an error: nothing is skipped there. */
export function findProgram(name: string): string | undefined {
  const path = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin']
  const found = path.map(folder => join(folder, name)).find(file => existsSync(file))
  if (!found && process.env.CI) throw new Error(`${name} is not installed, and CI skips nothing`)
  return found
}
