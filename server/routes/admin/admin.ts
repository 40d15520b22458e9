import type { Routes } from '../../http/call.ts'
import type { Deps } from '../../http/env.ts'
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
export function adminRoutes(deps: Deps): Routes {
  const keeper = operatorKeeper(deps)
  return {
    ...customerRoutes(deps),
    ...policyRoutes(deps),
    ...keptKeys(deps, CUSTOMER, keeper),
    ...keptSecrets(deps, CUSTOMER, keeper),
    ...keptSessions(deps, CUSTOMER, keeper),
    [`POST ${CUSTOMER}/revoke`]: revokeAll(deps, keeper),
    ...keptAudit(deps, CUSTOMER, keeper),
    ...wholeAuditRoutes(deps),
    ...replicaRoutes(deps),
    ...serverRoutes(deps),
    ...tokenRevocationRoutes(deps),
  }
}
