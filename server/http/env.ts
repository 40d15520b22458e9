import type { ServerResponse } from 'node:http'
import type { Context } from 'hono'
import type { AuditContext } from '../audit/audit.ts'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import type { BodyHold, BodySender } from '../lib/body-memory.ts'
import { addressKey } from '../lib/rate-limiter.ts'
import type { Services } from '../services.ts'
import type { Incoming } from './target.ts'

export type { Services } from '../services.ts'

/** The context of any route, as far as functions that routes share may use it. */
export type AppContext = Pick<Context<AppEnv>, 'req' | 'env' | 'get'>

/** The bindings that @hono/node-server passes with each request. `app.request()` passes none. */
interface Bindings {
  incoming?: Incoming
  outgoing?: ServerResponse
}

interface AppVariables {
  services: Services
  requestId: string
  /** Released once the request is answered. */
  body: BodyHold
  /** The time for which the request waited for events (ms). Metrics don't count it as response time. */
  waitedMs?: number
  /** The route's authentication sets one of these two. */
  actor?: string
  client?: AuthenticatedClient
}

/** Every route but /verify. */
export interface AppEnv {
  Bindings: Bindings
  Variables: AppVariables
}

interface WithVariables<More extends object> {
  Bindings: Bindings
  Variables: AppVariables & More
}

/** Behind `requireAccount`: a customer that acts for itself, and the session of its token. */
export type AccountEnv = WithVariables<{ customerId: string; sessionId: string; actor: string }>

/**
 * The customer whose resource is requested, and the actor: the customer, one of its API keys, a service, or an operator.
 */
export type CustomerEnv = WithVariables<{ customerId: string; actor: string }>

/** Behind `requireOperator` or `requireOperatorOrService`. */
export type OperatorEnv = WithVariables<{ actor: string }>

/** Behind `requireClient` or `requireFormClient`, which also reads the form. */
export type ClientEnv = WithVariables<{ client: AuthenticatedClient; form: Map<string, string> }>

export type ApiKeyClient = Extract<AuthenticatedClient, { kind: 'api_key' }>

/** Returns the actor, IP address and user agent for the audit log. */
export function auditContext(c: AppContext, actor: string): AuditContext {
  return { actor, ip: clientIp(c), userAgent: c.req.header('user-agent')?.slice(0, 256) }
}

const clientIp = (c: AppContext) =>
  c.get('services').clientIps.clientIp(c.env?.incoming?.socket.remoteAddress, c.req.header('x-forwarded-for'))

export function bodySender(c: AppContext): BodySender {
  const client = c.get('client')
  return { address: addressKey(clientIp(c)), credential: client ? credentialName(client) : c.get('actor') }
}

/** The client as the audit names it. */
export const credentialName = (client: AuthenticatedClient) =>
  client.kind === 'service' ? `service:${client.name}` : `api_key:${client.id}`
