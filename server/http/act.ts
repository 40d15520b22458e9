import type { Context } from 'hono'
import type { AuditContext } from '../audit/audit.ts'
import { waitForAll, waitParam } from './consistency.ts'
import { auditContext, type OperatorEnv, type Services } from './env.ts'

/** The context of a route whose authentication has set the actor. */
type ActorContext = Pick<Context<OperatorEnv>, 'req' | 'env' | 'get'>

export const actorContext = (c: ActorContext) => auditContext(c, c.get('actor'))

type Seq = number | undefined

/**
 * Runs an act of the actor, which returns the change feed's number. With `?wait=all` it resolves when no replica can
 * still answer from the earlier state. It waits even if nothing was left to change: the change of an earlier attempt
 * may not have reached every replica yet.
 */
export async function actAndWait<Result extends Seq | { seq: Seq }>(
  c: ActorContext,
  act: (services: Services, context: AuditContext) => Promise<Result>,
): Promise<Result> {
  const wait = waitParam(c)
  const result = await act(c.get('services'), actorContext(c))
  await waitForAll(c, wait, typeof result === 'object' ? result.seq : result)
  return result
}
