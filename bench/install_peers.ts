import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { once } from './once.ts'
import { run } from './trees.ts'

/** The peers have their own packages, so that users of Assay do not install them. */
export const installPeers = once(async () => {
  const folder = join(import.meta.dirname, 'peers')
  if (existsSync(join(folder, 'node_modules'))) return
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], folder)
})
