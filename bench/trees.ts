import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { once } from './once.ts'
import { scratchFolder } from './scratch.ts'

/** A version of the code. The bench starts its server/main.ts and sends requests to it, and uses none of its other files. */
export interface Tree {
  folder: string
  /** The suffix of the names of its contenders. */
  suffix: string
}

/** The commit that the targets compare with. */
export const OLD = '48041d0'
export const AT_OLD = `, at ${OLD}`

const ROOT = join(import.meta.dirname, '..')

export const here = async (): Promise<Tree> => ({ folder: ROOT, suffix: '' })

/** The old code with the packages of its own lockfile, in a folder that the bench removes. */
export const old = once(async (): Promise<Tree> => {
  const folder = await scratchFolder()
  const archive = join(folder, 'tree.tar')
  run('git', ['archive', '--output', archive, OLD], ROOT)
  run('tar', ['-xf', archive, '-C', folder], folder)
  run('npm', ['ci', '--omit=dev', '--no-audit', '--no-fund', '--loglevel=error'], folder)
  return { folder, suffix: AT_OLD }
})

export function run(program: string, args: string[], cwd: string) {
  const { status, error } = spawnSync(program, args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
  if (status !== 0) throw new Error(`${program} ${args[0]} failed in ${cwd}: ${error?.message ?? status}`)
}
