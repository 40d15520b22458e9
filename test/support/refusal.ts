import { describeFailure, type Failure } from '../../server/exit-codes.ts'
import { openDatabase } from '../../server/open-database.ts'

/** What would end a start on this database, without its process. Rejects if nothing would. */
export const refusalOf = (databaseUrl: string): Promise<Failure> =>
  openDatabase({ databaseUrl, directDatabaseUrl: undefined }, undefined).then(async db => {
    await db.close()
    throw new Error('it was opened')
  }, describeFailure)
