import postgres from 'postgres'
import type { TestProject } from 'vitest/node'
import { createDatabase, MIGRATES, SERVES } from './database.ts'

/**
 * Creates one database with this version's migrations, which each world copies. The end of a run drops the database and
 * the two roles of the test databases.
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
  // Another run on the same server may still use the roles.
  await sql.unsafe(`drop role if exists ${MIGRATES}, ${SERVES}`).catch(error => {
    if (error.code !== DEPENDENT_OBJECTS) throw error
  })
  await sql.end()
}

const DEPENDENT_OBJECTS = '2BP01'
