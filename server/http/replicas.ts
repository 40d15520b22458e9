import type { ReplicaRow } from '../replicas.ts'
import type { Call, Routes } from './call.ts'
import type { Deps } from './context.ts'
import { operator } from './operator.ts'
import { json, NO_STORE } from './respond.ts'

/** The processes that answer for this installation, as the database knows them. */
export const replicaRoutes = (deps: Pick<Deps, 'operators' | 'replicas'>): Routes => ({
  'GET /admin/replicas': async function listReplicas(call: Call) {
    operator(call, deps)
    return json({ replicas: (await deps.replicas.list()).map(toReplica) }, 200, NO_STORE)
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
