import { type AuditRow, listEvents, type Origin } from '../db/audit.ts'
import type { Database } from '../db/client.ts'

export { AUDIT_TYPES, type AuditQuery, type AuditRow, type AuditType, type Origin } from '../db/audit.ts'

/** Who acts though nobody asked. */
export const MAINTENANCE: Origin = { actor: 'maintenance', ip: undefined, userAgent: undefined }

export class Audit {
  readonly #db: Pick<Database, 'orm'>

  constructor(db: Pick<Database, 'orm'>) {
    this.#db = db
  }

  list(query: Parameters<typeof listEvents>[1]): Promise<AuditRow[]> {
    return listEvents(this.#db, query)
  }
}
