import { execFileSync } from 'node:child_process'
import { chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

const asRoot = (...command: string[]) =>
  process.getuid?.() === 0
    ? execFileSync(command[0]!, command.slice(1))
    : execFileSync('sudo', ['-n', ...command])

/** A disk in memory that a test may fill completely. Unmounted when the test ends. */
export function mountSmallDisk(megabytes: number, owner: { uid?: number; gid?: number }) {
  const folder = mkdtempSync(join(tmpdir(), 'assay-disk-'))
  asRoot('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0777`, 'none', folder)
  onTestFinished(() => {
    asRoot('umount', '-l', folder)
    rmSync(folder, { recursive: true })
  })
  if (owner.uid !== undefined) chownSync(folder, owner.uid, owner.gid!)
  return {
    folder,
    fill() {
      const chunk = Buffer.alloc(4_096)
      const file = join(folder, 'full')
      try {
        for (;;) writeFileSync(file, chunk, { flag: 'a' })
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
      }
    },
    makeRoom: () => rmSync(join(folder, 'full')),
  }
}
