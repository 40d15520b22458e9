import type { Routes } from '../../http/call.ts'
import type { Services } from '../../http/env.ts'
import { keptKeys } from '../api-keys.ts'
import { keptAudit, wholeAuditRoutes } from '../audit.ts'
import { keptSessions, revokeAll } from '../sessions.ts'
import { keptSecrets } from '../signing-keys.ts'
import { CUSTOMER, customerRoutes, operatorKeeper } from './customers.ts'
import { policyRoutes } from './policies.ts'
import { replicaRoutes } from './replicas.ts'
import { serverRoutes } from './resource-servers.ts'
import { tokenRevocationRoutes } from './revoke.ts'

/** What operators may: to every customer what it may do itself, and what it may not. */
export function adminRoutes(services: Services): Routes {
  const keeper = operatorKeeper(services)
  return {
    ...customerRoutes(services),
    ...policyRoutes(services),
    ...keptKeys(services, CUSTOMER, keeper),
    ...keptSecrets(services, CUSTOMER, keeper),
    ...keptSessions(services, CUSTOMER, keeper),
    [`POST ${CUSTOMER}/revoke`]: revokeAll(services, keeper),
    ...keptAudit(services, CUSTOMER, keeper),
    ...wholeAuditRoutes(services),
    ...replicaRoutes(services),
    ...serverRoutes(services),
    ...tokenRevocationRoutes(services),
  }
}
