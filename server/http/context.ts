import type { Audit, Origin } from '../audit.ts'
import type { Bus } from '../bus.ts'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import type { Creation } from '../creation.ts'
import type { Credentials } from '../credentials.ts'
import type { Customers } from '../customers.ts'
import type { Directory } from '../directory.ts'
import type { Explainer } from '../explaining.ts'
import type { Issuer } from '../issuing.ts'
import type { Log } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import type { Operators } from '../operators.ts'
import type { Replicas } from '../replicas.ts'
import type { Retirement } from '../retirement.ts'
import type { Revoker } from '../revoking.ts'
import type { Secrets } from '../secrets.ts'
import type { Servers } from '../servers.ts'
import type { Sessions } from '../sessions.ts'
import type { Tokens } from '../tokens.ts'
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
