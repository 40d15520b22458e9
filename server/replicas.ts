import { listReplicas } from '../db/replicas.ts'
import type { Querier } from '../db/revocations.ts'

export type { ReplicaRow } from '../db/replicas.ts'

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
