import { type DestinationStream, type Logger, pino } from 'pino'
import { DatabaseError } from '../../db/errors.ts'
import { RedisFailure } from '../../db/redis-errors.ts'
import { ApiError } from './errors.ts'

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error' | 'fatal'>

/** JSON lines. What may hold a secret never gets this far; the redaction is for the day that it does. */
export function createLog(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: null,
    serializers: { err: describeError },
    formatters: { log: redact },
  }
  return destination ? pino(options, destination) : pino(options)
}

/** The process's own output. */
export const standardOutput = () => gathered(pino.destination({ fd: 1, sync: true }))

/**
 * Lines of one turn of the event loop are written together, at its end: a call of the system's for each is a tenth of what
 * its request costs. A line that the process ends with is written before it ends.
 */
export function gathered(file: DestinationStream): DestinationStream & { flushSync(): void } {
  let lines = ''
  function flushSync() {
    const text = lines
    lines = ''
    if (text !== '') file.write(text)
  }
  process.on('exit', flushSync)
  return {
    flushSync,
    write(line) {
      if (lines === '') setImmediate(flushSync)
      lines += line
    },
  }
}

const SECRETS = new Set([
  'password',
  'token',
  'secret',
  'authorization',
  'cookie',
  'access_token',
  'refresh_token',
  'api_key',
])

/** By name, in the line and in its plain members. pino's own takes 10 to 20 µs a line, which is a request's. */
function redact(line: Record<string, unknown>): Record<string, unknown> {
  const clean = censored(line)
  for (const name in clean) {
    const member = clean[name]
    if (isPlain(member)) clean[name] = censored(member)
  }
  return clean
}

function censored(members: Record<string, unknown>): Record<string, unknown> {
  const clean: Record<string, unknown> = {}
  for (const name in members) clean[name] = SECRETS.has(name) ? '***' : members[name]
  return clean
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype

/** Of an error that isn't ours the message is left out: drivers and parsers repeat in it what they were given. */
function describeError(error: unknown) {
  if (error instanceof ApiError)
    return {
      code: error.code,
      message: error.message,
      ...(error.detail !== undefined && { detail: error.detail }),
    }
  if (error instanceof DatabaseError)
    return { sqlstate: error.sqlstate, message: error.message, stack: error.stack }
  if (error instanceof RedisFailure) return { detail: error.message }
  const { name, code, stack } = (error ?? {}) as { name?: string; code?: unknown; stack?: string }
  return {
    name,
    code,
    stack: stack
      ?.split('\n')
      .filter(line => /^\s+at /.test(line))
      .join('\n'),
  }
}
