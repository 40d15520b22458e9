import { createMiddleware } from 'hono/factory'
import { mayServe } from '../clients/served-customer.ts'
import { ApiError } from '../lib/errors.ts'
import type { AppContext, AppEnv } from './env.ts'
import { queryOf, targetOfContext } from './target.ts'

/**
 * Refuses a repeated parameter (RFC 6749 3.2), unless it is `repeatable`: its values are then separated by spaces.
 */
export function uniqueParams(
  params: Iterable<[name: string, value: string]>,
  repeatable: ReadonlySet<string> = NONE,
): Map<string, string> {
  const found = new Map<string, string>()
  for (const [name, value] of params) {
    if (/\p{Cc}/u.test(value))
      throw new ApiError('invalid_request', 'a parameter has control characters; remove them')
    const before = found.get(name)
    if (before !== undefined && !repeatable.has(name))
      throw new ApiError('invalid_request', 'a parameter is repeated; send each once')
    found.set(name, before === undefined ? value : `${before} ${value}`)
  }
  return found
}

const NONE: ReadonlySet<string> = new Set()

/**
 * The query's parameters. Refuses any other than `names`, because a misspelt one would be ignored, and an empty one, because an
 * empty filter would match everything.
 */
export function readQuery<Name extends string>(
  c: AppContext,
  names: readonly Name[],
): { [name in Name]?: string } {
  const query = uniqueParams(new URLSearchParams(queryOf(targetOfContext(c))))
  for (const [name, value] of query) {
    if (!(names as readonly string[]).includes(name))
      throw new ApiError('invalid_request', allowedQuery(names))
    if (value === '')
      throw new ApiError('invalid_request', `${name}: is empty in the query; give it a value or omit it`)
  }
  return Object.fromEntries(query) as { [name in Name]?: string }
}

const allowedQuery = (names: readonly string[]) =>
  names.length === 0
    ? 'no query parameters are allowed here; remove them'
    : `unknown query parameter; allowed: ${names.join(', ')}`

/** For a route without query parameters. */
export const noQuery = createMiddleware<AppEnv>((c, next) => {
  if (queryOf(targetOfContext(c)) !== '') readQuery(c, [])
  return next()
})

/** Omits undefined and null members: a response never contains null. */
export function present<Members extends object>(
  members: Members,
): { [K in keyof Members]?: NonNullable<Members[K]> } {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined && value !== null),
  ) as never
}

/** `:id` of the path. No id of ours has other characters, so any other text is 404 without a lookup. */
export function idParam(c: AppContext): string {
  const id = c.req.param('id') ?? ''
  if (!/^[a-z2-7]{24,32}$/.test(id)) throw new ApiError('not_found', 'nothing has this id; check it')
  return id
}

/**
 * `:customer` of the path; as `idParam`. A customer that the service may not serve is answered like one that doesn't exist, and
 * at the same cost: neither is looked up.
 */
export function customerParam(c: AppContext): string {
  const id = c.req.param('customer') ?? ''
  const client = c.get('client')
  if (!/^[a-z2-7]{16}$/.test(id) || (client && !mayServe(client, id)))
    throw new ApiError('not_found', 'no such customer; check the id')
  return id
}

const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

/** A retry with the same key gets the same answer. */
export function idempotencyKey(c: AppContext): string | undefined {
  const key = c.req.header('idempotency-key')
  if (key !== undefined && !IDEMPOTENCY_KEY.test(key))
    throw new ApiError('invalid_request', 'Idempotency-Key: 1 to 255 visible ASCII characters')
  return key
}
