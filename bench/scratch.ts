import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The bench writes only into this folder, and removes it. */
let root: Promise<string> | undefined
let made = 0

export async function scratchFolder(): Promise<string> {
  root ??= mkdtemp(join(tmpdir(), 'assay-bench-'))
  const folder = join(await root, String(++made))
  await mkdir(folder)
  return folder
}

export async function removeScratch() {
  if (root) await rm(await root, { recursive: true, force: true })
}
