import type { ServerResponse } from 'node:http'
import type { Context } from 'hono'
import type { Audit, AuditContext } from '../audit/audit.ts'
import type { AuthenticatedClient, ClientAuthenticator } from '../clients/authenticate.ts'
import type { Operators } from '../clients/operators.ts'
import type { ResourceServers } from '../clients/resource-servers.ts'
import type { Config } from '../config/load.ts'
import type { Accounts } from '../customers/accounts.ts'
import type { CustomerAdmin } from '../customers/admin.ts'
import type { Provisioning } from '../customers/provisioning.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import type { KeyRetirement } from '../keys/retirement.ts'
import type { KeyRotation } from '../keys/rotation.ts'
import type { ClientIps } from '../lib/client-ip.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import type { Metrics } from '../lib/metrics.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { Replicas } from '../revocation/replicas.ts'
import type { Revoker } from '../revocation/revoker.ts'
import type { Explainer } from '../tokens/explain.ts'
import type { Issuer } from '../tokens/issuer.ts'
import type { Sessions } from '../tokens/refresh.ts'
import type { TokenVerifier } from '../tokens/verifier.ts'
import type { Incoming } from './target.ts'

/** Everything that routes call. */
export interface Services {
  config: Config
  clock: Clock
  changeFeed: ChangeFeed
  tokens: TokenVerifier
  issuer: Issuer
  revoker: Revoker
  sessions: Sessions
  accounts: Accounts
  clients: ClientAuthenticator
  keyRotation: KeyRotation
  keyRetirement: KeyRetirement
  audit: Audit
  provisioning: Provisioning
  customerAdmin: CustomerAdmin
  explainer: Explainer
  replicas: Replicas
  resourceServers: ResourceServers
  operators: Operators
  metrics: Metrics
  log: Log
  clientIps: ClientIps
  process: ProcessState
}

/** State that only the process itself knows. */
export interface ProcessState {
  draining(): boolean
  /** Whether the database answers and has this version's migrations. Throws when it doesn't answer. */
  migrated(): Promise<boolean>
}

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

/** Behind `requireAccessToken`. */
export type AccessTokenEnv = WithVariables<{ claims: AccessClaims }>

/** Behind `requireAccount`: a customer that acts for itself, and the session of its token. */
export type AccountEnv = WithVariables<{ customerId: string; sessionId: string; actor: string }>

/**
 * The customer whose resource is requested, and the actor: the customer, one of its API keys, or an operator.
 */
export type CustomerEnv = WithVariables<{ customerId: string; actor: string }>

/** Behind `requireOperator`. */
export type OperatorEnv = WithVariables<{ actor: string }>

/** Behind `requireClient` or `requireFormClient`, which also reads the form. */
export type ClientEnv = WithVariables<{ client: AuthenticatedClient; form: Map<string, string> }>

/** Behind `requireApiKey`. */
export type ApiKeyEnv = WithVariables<{ client: ApiKeyClient }>

export type ApiKeyClient = Extract<AuthenticatedClient, { kind: 'api_key' }>

/** Returns the actor, IP address and user agent for the audit log. */
export function auditContext(c: AppContext, actor: string): AuditContext {
  return {
    actor,
    ip: c
      .get('services')
      .clientIps.clientIp(c.env?.incoming?.socket.remoteAddress, c.req.header('x-forwarded-for')),
    userAgent: c.req.header('user-agent')?.slice(0, 256),
  }
}
