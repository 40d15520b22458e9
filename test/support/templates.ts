import { cpSync } from 'node:fs'
import { inject } from 'vitest'
import { createDatabase } from './database.ts'

/** Copies an installation that no server has started on into a folder, and returns the folder for DATA_DIR. */
export function copyInstallation(folder: string): string {
  cpSync(inject('embeddedTemplate'), folder, { recursive: true })
  return folder
}

/** A migrated database on the project's Postgres. The test must drop it. */
export const copyDatabase = () => createDatabase(inject('databaseUrl'), inject('postgresTemplate'))
