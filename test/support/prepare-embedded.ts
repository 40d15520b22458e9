import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { open } from '../../db/client.ts'
import { adminTokenFile, masterKeysFile, openDataDir } from '../../server/embedded/data-dir.ts'

/**
 * Creates one embedded installation with this version's migrations, which each test file copies. Creating one takes
 * several times the processor time of opening a copy, most of it in PGlite's initdb.
 */
export default async function setup(project: TestProject) {
  const root = mkdtempSync(join(tmpdir(), 'assay-embedded-'))
  const template = join(root, 'template')
  const folder = openDataDir(template)
  masterKeysFile(folder)
  adminTokenFile(folder)
  const db = await open({ folder: folder.database })
  await db.close()
  folder.release()
  project.provide('embeddedTemplate', template)
  // The copies are in the same folder. Failed test files leave some behind.
  return () => rmSync(root, { recursive: true, force: true, maxRetries: 5 })
}
