import { ask } from './api.ts'
import type { Assay } from './assay.ts'
import { announced } from './contender.ts'
import type { Target } from './load.ts'
import type { Ask } from './plan.ts'
import * as plans from './plans.ts'

/** A bare Hono that answers as many bytes as Assay does, with the same headers: it is told what Assay answers to a token. */
export async function startTwins(assay: Assay, token: string): Promise<Target> {
  const [toVerify, toIntrospect] = [
    plans.verify([token]).requests[0]!,
    plans.introspect([token]).requests[0]!,
  ]
  const verify = await answerOf(assay.port, toVerify)
  const introspect = await answerOf(assay.port, toIntrospect)
  const twins = await announced('servers/twins.ts', { ANSWERS: JSON.stringify({ verify, introspect }) })
  const twin = await answerOf(twins.port, toIntrospect)
  if (twin.body.length !== introspect.body.length)
    throw new Error(`its twin answers ${twin.body.length} bytes, and Assay ${introspect.body.length}`)
  return twins
}

async function answerOf(port: number, request: Ask) {
  const answer = await ask(port, request)
  const own = Object.fromEntries([...answer.headers].filter(([name]) => !OF_THE_SERVER.has(name)))
  return { headers: own, body: await answer.text() }
}

/** What node:http writes by itself, in the twin too. */
const OF_THE_SERVER = new Set(['connection', 'date', 'keep-alive', 'transfer-encoding'])
