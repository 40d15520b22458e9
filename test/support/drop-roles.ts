import postgres from 'postgres'
import type { TestProject } from 'vitest/node'
import { MIGRATES, SERVES } from './database.ts'

/** At the end of a run, drops the two roles that its databases had. */
export default function setup(project: TestProject) {
  return async () => {
    const sql = postgres(project.getProvidedContext().databaseUrl, { max: 1, onnotice: () => {} })
    // Another run on the same server may still need them.
    await sql.unsafe(`drop role if exists ${MIGRATES}, ${SERVES}`).catch(error => {
      if (error.code !== DEPENDENT_OBJECTS) throw error
    })
    await sql.end()
  }
}

const DEPENDENT_OBJECTS = '2BP01'
