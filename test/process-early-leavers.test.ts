import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { earlyLeavers } from './support/early-leavers.ts'
import { copyInstallation } from './support/templates.ts'

/** Clients that disconnect early, on the embedded database. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
afterAll(() => rmSync(root, { recursive: true }))

earlyLeavers(
  () => ({ DATA_DIR: copyInstallation(join(root, 'data')) }),
  async () => {},
)
