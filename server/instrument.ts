import type { Database, Line } from '../db/client.ts'
import type { Redis } from '../db/redis.ts'
import { nameOf } from '../db/statement.ts'
import { served, told } from './lib/tracing.ts'

/** The parts of a replica that ask and are asked, wrapped where an SDK is to hear of it. */

/** Statements are told by their names: neither their text nor what they are asked with. */
export const instrumentDatabase = (db: Database): Database => ({
  ...db,
  ...tracedLine(db),
  line: deadline => tracedLine(db.line(deadline)),
})

const tracedLine = ({ query, close }: Line): Line => ({
  query: (statement, params) =>
    call('postgresql', nameOf(statement) ?? 'unnamed', () => query(statement, params)),
  close,
})

/** Commands without their keys and values. */
export const instrumentRedis = (redis: Redis): Redis => ({
  ...redis,
  get: (...asked) => call('redis', 'GETRANGE', () => redis.get(...asked)),
  set: (...asked) => call('redis', 'SET', () => redis.set(...asked)),
  eval: (...asked) => call('redis', 'EVAL', () => redis.eval(...asked)),
  publish: (...asked) => call('redis', 'PUBLISH', () => redis.publish(...asked)),
})

function call<Result>(system: string, operation: string, run: () => Promise<Result>): Promise<Result> {
  const acts = served().length
  const shared = acts > 1 && { 'db.operation.batch.size': acts }
  return told(operation, { 'db.system.name': system, 'db.operation.name': operation, ...shared }, run)
}
