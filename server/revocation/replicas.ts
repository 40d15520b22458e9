import type { Querier } from '../../db/queries/change-feed.ts'
import { listReplicas } from '../../db/queries/replicas.ts'

export type { ReplicaRow } from '../../db/queries/replicas.ts'

/** The replicas that serve this installation. */
export class Replicas {
  readonly #db: Querier

  constructor(db: Querier) {
    this.#db = db
  }

  /** Lists the replicas that polled recently, including this one. */
  list() {
    return listReplicas(this.#db, {})
  }
}
