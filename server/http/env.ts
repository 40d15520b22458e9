import type { Audit, Origin } from '../audit/audit.ts'
import type { Credentials } from '../clients/authenticate.ts'
import type { Operators } from '../clients/operators.ts'
import type { Servers } from '../clients/resource-servers.ts'
import type { Config } from '../config/load.ts'
import type { Customers } from '../customers/accounts.ts'
import type { Directory } from '../customers/admin.ts'
import type { Creation } from '../customers/provisioning.ts'
import type { Retirement } from '../keys/retirement.ts'
import type { Secrets } from '../keys/rotation.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import type { Metrics } from '../lib/metrics.ts'
import type { Bus } from '../revocation/change-feed.ts'
import type { Replicas } from '../revocation/replicas.ts'
import type { Revoker } from '../revocation/revoker.ts'
import type { Explainer } from '../tokens/explain.ts'
import type { Issuer } from '../tokens/issuer.ts'
import type { Sessions } from '../tokens/refresh.ts'
import type { Tokens } from '../tokens/verifier.ts'
import type { Call } from './call.ts'

/** What the routes are given; each takes what it needs of it. */
export interface Deps {
  config: Config
  clock: Clock
  bus: Bus
  tokens: Tokens
  issuer: Issuer
  revoker: Revoker
  sessions: Sessions
  customers: Customers
  credentials: Credentials
  secrets: Secrets
  retirement: Retirement
  audit: Audit
  creation: Creation
  directory: Directory
  explainer: Explainer
  replicas: Replicas
  servers: Servers
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
export async function consistent(asked: string | undefined, bus: Bus): Promise<void> {
  if (asked !== undefined) await bus.strict()
}

/** Milliseconds since the state was asked for that an answer rests on; undefined where it rests on none. */
export const ageOf = (bus: Bus): string | undefined =>
  bus.usable() ? String(Math.ceil(bus.answeredAt())) : undefined

/** Who acts, and from where, for the audit. */
export function originOf(call: Call, { proxies }: Pick<Deps, 'proxies'>, actor: string): Origin {
  return {
    actor,
    ip: proxies.clientIp(call.peer, call.header('x-forwarded-for')),
    userAgent: call.header('user-agent')?.slice(0, 256),
  }
}
