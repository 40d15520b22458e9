import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { once } from './once.ts'
import { scratchFolder } from './scratch.ts'

/** A state of the code. Of its files only server/main.ts is started, and what it is asked is asked by HTTP. */
export interface Tree {
  folder: string
  /** What the names of its contenders end with. */
  suffix: string
}

/** What the targets compare with. */
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
