import { ApiError } from '../lib/errors.ts'
import { audience } from './schemas.ts'

/** Parameters that a form may repeat (RFC 8707 2). */
export const REPEATABLE = new Set(['resource'])

const INVALID_TARGET = new ApiError(
  'invalid_target',
  'resource: an absolute URI without a fragment; audience: visible ASCII, like a URL; at most 10 of both together',
)

/**
 * The audience that a form requests by `resource` (RFC 8707 2), by `audience`, as other servers call it, or by both. Undefined if
 * the form requests none. A single audience is a string, as in claims. Throws `invalid_target`.
 */
export function requestedAudience(form: Map<string, string>): string | string[] | undefined {
  const resources = form.get('resource')?.split(' ') ?? []
  const named = form.get('audience')
  if (resources.length === 0 && named === undefined) return undefined
  const asked = [...new Set(named === undefined ? resources : [...resources, named])]
  if (!resources.every(isResource) || !audience.safeParse(asked).success) throw INVALID_TARGET
  return asked.length === 1 ? asked[0] : asked
}

const isResource = (text: string) => URL.canParse(text) && !text.includes('#')
