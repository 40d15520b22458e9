import type { Querier } from '../../db/queries/change-feed.ts'
import { listReplicas } from '../../db/queries/replicas.ts'

export type { ReplicaRow } from '../../db/queries/replicas.ts'

/** Who else serves this installation. */
export class Replicas {
  readonly #db: Querier

  constructor(db: Querier) {
    this.#db = db
  }

  /** Those that were heard of a moment ago, this one among them. */
  list() {
    return listReplicas(this.#db, {})
  }
}
