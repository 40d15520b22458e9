import { type DestinationStream, type Logger, pino } from 'pino'
import { DatabaseError } from '../../db/errors.ts'
import { RedisFailure } from '../../db/redis-errors.ts'
import { ApiError } from './errors.ts'

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error' | 'fatal'>

/** Logs JSON lines. Callers never log values that may contain secrets; the redaction is a safety net. */
export function createLog(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: null,
    serializers: { err: describeError },
    formatters: { log: redact },
  }
  return destination ? pino(options, destination) : pino(options)
}

/**
 * Writes the lines of one turn of the event loop together, at its end: a system call for each line would be a
 * tenth of the cost of its request. The last lines are written when the process exits.
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

/** Redacts by name, in the line and in its plain members. pino's redaction takes 10 to 20 µs per line. */
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

/** Omits the message of an error that isn't ours, because drivers and parsers repeat their input in it. */
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
