import { bearerOf } from '../../http/auth.ts'
import type { Call } from '../../http/call.ts'
import type { Deps } from '../../http/env.ts'
import { OAuthError, TokenMissing } from '../../lib/errors.ts'

const MISSING = 'send an operator token: Authorization: Bearer ...'
const WRONG = 'this is no operator token'
const READ_ONLY = 'this operator token only reads; use one that may change things'

/** Who acts, as the audit has it. Throws `invalid_token`; `insufficient_scope` where the call changes something that it may not. */
export function operator(
  call: Call,
  { operators }: Pick<Deps, 'operators'>,
  changes = isChange(call),
): string {
  const token = bearerOf(call.header('authorization'))
  if (token === undefined) throw new TokenMissing(MISSING)
  const found = operators.find(token)
  if (!found) throw new OAuthError('invalid_token', WRONG)
  if (found.readOnly && changes) throw new OAuthError('insufficient_scope', READ_ONLY)
  return `operator:${found.name}`
}

const isChange = ({ method }: Call) => method !== 'GET' && method !== 'HEAD'
