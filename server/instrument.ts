import type { Database, Line } from '../db/client.ts'
import { statementName } from '../db/prepared.ts'
import type { Redis } from '../db/redis.ts'
import type { App } from './app.ts'
import { served, type Tracing, told } from './lib/tracing.ts'

/** The parts of a replica that ask and are asked, wrapped where an SDK is to hear of it. */

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT', 'TRACE'])

/** What has no route has no span either. */
export const instrumentApp = (app: App, tracing: Tracing): App => ({
  ...app,
  answer(incoming) {
    const found = app.routeOf(incoming)
    if (found === undefined) return app.answer(incoming)
    const { method = '', headers } = incoming
    const asked = { ...found, headers, method: METHODS.has(method) ? method : '_OTHER' }
    return tracing.follow(asked, () => app.answer(incoming))
  },
})

/** Statements are told by their names: neither their text nor what they are asked with. */
export const instrumentDatabase = (db: Database): Database => ({
  ...db,
  ...tracedLine(db),
  line: deadline => tracedLine(db.line(deadline)),
})

const tracedLine = ({ query, values, close }: Line): Line => ({
  query: (statement, params) =>
    call('postgresql', statementName(statement) ?? 'unnamed', () => query(statement, params)),
  values: (statement, params) =>
    call('postgresql', statementName(statement) ?? 'unnamed', () => values(statement, params)),
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
