import { ApiError } from '../lib/errors.ts'
import type { Call } from './call.ts'

/** Empty ones are absent; a repeated one is refused (RFC 6749 3.2). */
export function onePerName(params: URLSearchParams): Map<string, string> {
  const found = new Map<string, string>()
  for (const [name, value] of params) {
    if (value === '') continue
    if (/\p{Cc}/u.test(value)) throw new ApiError('invalid_request', 'a parameter has control characters')
    if (found.has(name)) throw new ApiError('invalid_request', 'a parameter is repeated; send each once')
    found.set(name, value)
  }
  return found
}

/** The query's parameters, of which only `names` are known. */
export function readQuery<Name extends string>(
  call: Call,
  names: readonly Name[],
): { [name in Name]?: string } {
  const query = onePerName(new URLSearchParams(call.query))
  for (const name of query.keys())
    if (!(names as readonly string[]).includes(name))
      throw new ApiError('invalid_request', `only these may stand in the query: ${names.join(', ')}`)
  return Object.fromEntries(query) as { [name in Name]?: string }
}

/** Leaves out what is undefined or null: no answer has a null in it. */
export function present<Members extends object>(
  members: Members,
): { [K in keyof Members]?: NonNullable<Members[K]> } {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined && value !== null),
  ) as never
}

/** Ours have only these characters; what has others is not there, and never asked for. */
export function idOf(call: Call): string {
  const id = call.params.id ?? ''
  if (!/^[a-z2-7]{24,32}$/.test(id)) throw new ApiError('not_found', 'nothing has this id')
  return id
}

const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

/** What a retry of the same request brings again. */
export function idempotencyKey(call: Call): string | undefined {
  const key = call.header('idempotency-key')
  if (key !== undefined && !IDEMPOTENCY_KEY.test(key))
    throw new ApiError('invalid_request', 'Idempotency-Key: 1 to 255 visible ASCII characters')
  return key
}
