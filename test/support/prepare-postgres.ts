import postgres from 'postgres'
import type { TestProject } from 'vitest/node'
import { createDatabase, MIGRATES, SERVES } from './database.ts'

/**
 * Makes one database by this version's migrations, for each world to copy. At the end of a run, drops it and the two roles
 * that its databases had.
 */
export default async function setup(project: TestProject) {
  const { databaseUrl } = project.getProvidedContext()
  const template = await createDatabase(databaseUrl)
  project.provide('postgresTemplate', template.url)
  return async () => {
    await template.drop()
    await dropRoles(databaseUrl)
  }
}

async function dropRoles(databaseUrl: string) {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
  // Another run on the same server may still need them.
  await sql.unsafe(`drop role if exists ${MIGRATES}, ${SERVES}`).catch(error => {
    if (error.code !== DEPENDENT_OBJECTS) throw error
  })
  await sql.end()
}

const DEPENDENT_OBJECTS = '2BP01'
