import { describeFailure, type Failure } from '../../server/exit-codes.ts'
import { openDatabase } from '../../server/open-database.ts'

/** Resolves with the error that ends a start on this database, without starting a process. Rejects if the start succeeds. */
export const refusalOf = (databaseUrl: string): Promise<Failure> =>
  openDatabase({ databaseUrl, directDatabaseUrl: undefined }, undefined).then(async db => {
    await db.close()
    throw new Error('it was opened')
  }, describeFailure)
