import { listReplicas as list } from '../../db/queries/replicas.ts'
import type { Services } from '../services.ts'

export type { ReplicaRow } from '../../db/queries/replicas.ts'

/** Lists the replicas that polled recently, including this one. */
export const listReplicas = ({ db }: Services) => list(db, {})
