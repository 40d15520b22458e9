import type { Audit, AuditContext } from '../audit/audit.ts'
import type { ClientAuthenticator } from '../clients/authenticate.ts'
import type { Operators } from '../clients/operators.ts'
import type { ResourceServers } from '../clients/resource-servers.ts'
import type { Config } from '../config/load.ts'
import type { Accounts } from '../customers/accounts.ts'
import type { CustomerAdmin } from '../customers/admin.ts'
import type { Provisioning } from '../customers/provisioning.ts'
import type { KeyRetirement } from '../keys/retirement.ts'
import type { KeyRotation } from '../keys/rotation.ts'
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
import type { Call } from './call.ts'

/** What the routes are given; each takes what it needs of it. */
export interface Services {
  config: Config
  clock: Clock
  changeFeed: ChangeFeed
  tokens: TokenVerifier
  issuer: Issuer
  revoker: Revoker
  sessions: Sessions
  customers: Accounts
  credentials: ClientAuthenticator
  secrets: KeyRotation
  retirement: KeyRetirement
  audit: Audit
  provisioning: Provisioning
  customerAdmin: CustomerAdmin
  explainer: Explainer
  replicas: Replicas
  servers: ResourceServers
  operators: Operators
  metrics: Metrics
  log: Log
  proxies: Proxies
  process: ProcessState
}

/** What only the process knows of itself. */
export interface ProcessState {
  draining(): boolean
  /** Whether the database answers and has this version's migrations. Throws when it doesn't answer. */
  migrated(): Promise<boolean>
}

export interface Proxies {
  /** The address that a request came from, seen through the proxies that are trusted. */
  clientIp(peer: string | undefined, forwardedFor: string | undefined): string | undefined
}

/** `X-Consistency: strict` asks for an answer from a state not older than the question; a misspelt value does too. */
export async function consistent(asked: string | undefined, changeFeed: ChangeFeed): Promise<void> {
  if (asked !== undefined) await changeFeed.readBarrier()
}

/** Milliseconds since the state was asked for that an answer rests on; undefined where it rests on none. */
export const ageOf = (changeFeed: ChangeFeed): string | undefined =>
  changeFeed.hasLease() ? String(Math.ceil(changeFeed.recordAnswer())) : undefined

/** Who acts, and from where, for the audit. */
export function auditContextOf(
  call: Call,
  { proxies }: Pick<Services, 'proxies'>,
  actor: string,
): AuditContext {
  return {
    actor,
    ip: proxies.clientIp(call.peer, call.header('x-forwarded-for')),
    userAgent: call.header('user-agent')?.slice(0, 256),
  }
}
