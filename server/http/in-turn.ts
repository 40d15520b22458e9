import type { Context } from 'hono'
import { turnOwner } from '../audit/actor.ts'
import type { CustomerEnv } from './env.ts'

/**
 * Runs a statement that reads for one customer, operator or service only. They take turns. Acts that share statements take turns
 * in lib/batcher.ts, and acts with a limit per minute need no turns. Throws RateLimitedError.
 */
export function inTurn<Result>(
  c: Pick<Context<CustomerEnv>, 'get'>,
  run: () => Promise<Result>,
): Promise<Result> {
  return c.get('services').reads.run(turnOwner(c.get('actor'), c.get('customerId')), run)
}
