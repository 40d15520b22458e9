import type { Call, Routes } from '../../http/call.ts'
import type { Services } from '../../http/env.ts'
import { json, NO_STORE } from '../../http/respond.ts'
import type { ReplicaRow } from '../../revocation/replicas.ts'
import { operator } from './operator.ts'

/** The processes that answer for this installation, as the database knows them. */
export const replicaRoutes = (services: Pick<Services, 'operators' | 'replicas'>): Routes => ({
  'GET /admin/replicas': async function listReplicas(call: Call) {
    operator(call, services)
    return json({ replicas: (await services.replicas.list()).map(toReplica) }, 200, NO_STORE)
  },
})

const toReplica = ({ id, version, applied, behind, age, maxStaleness }: ReplicaRow) => ({
  id,
  version,
  applied,
  behind,
  age_ms: Math.max(0, Math.round(age)),
  max_staleness_ms: maxStaleness,
})
