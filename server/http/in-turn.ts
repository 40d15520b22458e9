import type { Context } from 'hono'
import { isOperator } from '../audit/actor.ts'
import type { CustomerEnv } from './env.ts'

/**
 * Runs a statement that reads for one customer or operator only. Customers and operators take turns. Acts that share statements
 * take turns in lib/batcher.ts, and acts with a limit per minute need no turns. Throws RateLimitedError.
 */
export function inTurn<Result>(
  c: Pick<Context<CustomerEnv>, 'get'>,
  run: () => Promise<Result>,
): Promise<Result> {
  const actor = c.get('actor')
  const owner = isOperator(actor) ? actor : c.get('customerId')
  return c.get('services').reads.run(owner, run)
}
