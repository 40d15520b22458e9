import { Hono } from 'hono'
import type { OperatorEnv } from '../../http/env.ts'
import { noQuery } from '../../http/params.ts'
import { json } from '../../http/respond.ts'
import { listReplicas, type ReplicaRow } from '../../revocation/replicas.ts'

/** The processes that serve this installation, as the database knows them. */
export const replicas = new Hono<OperatorEnv>().get('/', noQuery, async c => {
  const rows = await listReplicas(c.get('services'))
  return json(c, { replicas: rows.map(serializeReplica) })
})

const serializeReplica = ({ id, version, applied, behind, age, maxStaleness }: ReplicaRow) => ({
  id,
  version,
  applied,
  behind,
  age_ms: Math.max(0, Math.round(age)),
  max_staleness_ms: maxStaleness,
})
