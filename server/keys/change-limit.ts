import { isOperator, isService } from '../audit/actor.ts'
import type { AuditContext } from '../audit/audit.ts'
import type { RateLimiter } from '../lib/rate-limiter.ts'

/**
 * Counts a rotation or a retirement. A customer's limit is for its own requests: someone with its stolen account must not delay
 * an operator's emergency. Services have a limit of their own, operators none. Throws RateLimitedError.
 */
export async function takeKeyChange(
  limits: RateLimiter,
  change: 'rotate' | 'retire',
  customerId: string,
  { actor }: AuditContext,
): Promise<void> {
  if (isOperator(actor)) return
  if (isService(actor)) await limits.take(`${change}OfService`, actor)
  else await limits.take(change, customerId)
}
