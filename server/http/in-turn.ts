import type { Context } from 'hono'
import { isOperator } from '../audit/actor.ts'
import type { CustomerEnv } from './env.ts'

/**
 * Runs an unshared statement for a customer or an operator. Customers and operators take turns. Acts that share
 * statements have their turns in lib/batcher.ts, and acts with a limit per minute need none. Throws RateLimitedError.
 */
export function inTurn<Result>(
  c: Pick<Context<CustomerEnv>, 'get'>,
  run: () => Promise<Result>,
): Promise<Result> {
  const actor = c.get('actor')
  const owner = isOperator(actor) ? actor : c.get('customerId')
  return c.get('services').turns.run(owner, run)
}
