import { ask } from './api.ts'
import type { Assay } from './assay.ts'
import { announced } from './contender.ts'
import type { Target } from './load.ts'
import * as plans from './plans.ts'

/**
 * Starts a bare Hono app whose answers have the same size and headers as those of Assay. The headers and bodies come from
 * Assay's answers to one token.
 */
export async function startTwins(assay: Assay, token: string): Promise<Target> {
  const [toVerify, toIntrospect] = [
    plans.verify([token]).requests[0]!,
    plans.introspect([token]).requests[0]!,
  ]
  const verify = await ask(assay.port, toVerify)
  const introspect = await ask(assay.port, toIntrospect)
  const twins = await announced('servers/twins.ts', { ANSWERS: JSON.stringify({ verify, introspect }) })
  const twin = await ask(twins.port, toIntrospect)
  if (twin.body.length !== introspect.body.length)
    throw new Error(
      `the twin's answer has ${twin.body.length} bytes, and Assay's has ${introspect.body.length}`,
    )
  return twins
}
