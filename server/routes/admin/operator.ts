import { bearerOf } from '../../http/auth.ts'
import type { Call } from '../../http/call.ts'
import type { Services } from '../../http/env.ts'
import { ApiError, TokenMissing } from '../../lib/errors.ts'

const NO_TOKEN = 'send an operator token: Authorization: Bearer ...'
const INVALID_TOKEN = 'this is no operator token'
const READ_ONLY = 'this operator token only reads; use one that may change things'

/** Who acts, as the audit has it. Throws `invalid_token`; `insufficient_scope` where the call changes something that it may not. */
export function operator(
  call: Call,
  { operators }: Pick<Services, 'operators'>,
  changes = isChange(call),
): string {
  const token = bearerOf(call.header('authorization'))
  if (token === undefined) throw new TokenMissing(NO_TOKEN)
  const found = operators.find(token)
  if (!found) throw new ApiError('invalid_token', INVALID_TOKEN)
  if (found.readOnly && changes) throw new ApiError('insufficient_scope', READ_ONLY)
  return `operator:${found.name}`
}

const isChange = ({ method }: Call) => method !== 'GET' && method !== 'HEAD'
