import type { Context } from 'hono'
import { isOperator } from '../audit/actor.ts'
import type { CustomerEnv } from './env.ts'

/**
 * Runs a statement of its own for a customer or an operator, each of whom has one in turn. Acts that share statements have their
 * turns there (lib/batcher.ts), and what is limited per minute needs none. Throws RateLimitedError.
 */
export function inTurn<Result>(
  c: Pick<Context<CustomerEnv>, 'get'>,
  run: () => Promise<Result>,
): Promise<Result> {
  const actor = c.get('actor')
  const owner = isOperator(actor) ? actor : c.get('customerId')
  return c.get('services').turns.run(owner, run)
}
