import type { Context } from 'hono'
import { type CustomerEnv, isOperator } from './env.ts'

/**
 * Runs a read that may cost many rows. Only a few are under way at a time, so that they leave connections of the database to
 * issue and refresh; each customer and each operator has one in turn. Throws RateLimitedError.
 */
export function limitedRead<Result>(
  c: Pick<Context<CustomerEnv>, 'get'>,
  read: () => Promise<Result>,
): Promise<Result> {
  const actor = c.get('actor')
  const owner = isOperator(actor) ? actor : c.get('customerId')
  return c.get('services').reads.run(owner, read)
}
