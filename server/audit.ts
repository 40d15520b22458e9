import { type AuditQuery, type AuditRow, listEvents, type Origin } from '../db/audit.ts'
import type { Querier } from '../db/revocations.ts'

export { AUDIT_TYPES, type AuditQuery, type AuditRow, type AuditType, type Origin } from '../db/audit.ts'

/** Who acts though nobody asked. */
export const MAINTENANCE: Origin = { actor: 'maintenance', ip: undefined, userAgent: undefined }

export class Audit {
  readonly #db: Querier

  constructor(db: Querier) {
    this.#db = db
  }

  list(query: AuditQuery): Promise<AuditRow[]> {
    return listEvents(this.#db, query)
  }
}
