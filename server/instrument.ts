import type { Connection, Database } from '../db/client.ts'
import { statementName } from '../db/prepared.ts'
import type { Redis } from '../db/redis.ts'
import { served, traced } from './lib/tracing.ts'

/** Wraps the database and Redis in spans, if an SDK for traces is loaded. */

/** A span has a statement's name, and neither its text nor its parameters. */
export const instrumentDatabase = (db: Database): Database => ({
  ...db,
  ...instrumentConnection(db),
  connection: deadline => instrumentConnection(db.connection(deadline)),
})

const instrumentConnection = ({ query, values, close }: Connection): Connection => ({
  query: (statement, params) =>
    trace('postgresql', statementName(statement) ?? 'unnamed', () => query(statement, params)),
  values: (statement, params) =>
    trace('postgresql', statementName(statement) ?? 'unnamed', () => values(statement, params)),
  close,
})

/** A span has a command's name, and neither its key nor its value. */
export const instrumentRedis = (redis: Redis): Redis => ({
  ...redis,
  get: (...args) => trace('redis', 'GETRANGE', () => redis.get(...args)),
  set: (...args) => trace('redis', 'SET', () => redis.set(...args)),
  eval: (...args) => trace('redis', 'EVAL', () => redis.eval(...args)),
  publish: (...args) => trace('redis', 'PUBLISH', () => redis.publish(...args)),
})

function trace<Result>(system: string, operation: string, run: () => Promise<Result>): Promise<Result> {
  const size = served().length
  const batch = size > 1 && { 'db.operation.batch.size': size }
  return traced(operation, { 'db.system.name': system, 'db.operation.name': operation, ...batch }, run)
}
