import {
  type AuditContext,
  type AuditQuery,
  type AuditRow,
  type AuditSpan,
  listAllEvents,
  listEvents,
  listEventsOfOperator,
  listEventsOfType,
} from '../../db/queries/audit.ts'
import type { Querier } from '../../db/queries/change-feed.ts'

export type { AuditContext, AuditQuery, AuditRow, AuditSpan, AuditType } from '../../db/queries/audit.ts'
export { AUDIT_TYPES } from '../../db/queries/audit.ts'

/** The actor recorded for background jobs. */
export const MAINTENANCE: AuditContext = { actor: 'maintenance', ip: undefined, userAgent: undefined }

/** An operator's search: the events of one customer, of one operator, or of the whole installation. */
export interface AuditSearch extends AuditSpan {
  customerId: string | undefined
  /** `operator:<name>`. */
  actor: string | undefined
}

/** Events of one page of an export. */
const PAGE_ROWS = 1_000

export class Audit {
  readonly #db: Querier

  constructor(db: Querier) {
    this.#db = db
  }

  /** Lists the events of one customer, newest first. */
  list(query: AuditQuery): Promise<AuditRow[]> {
    return listEvents(this.#db, query)
  }

  /** Newest first. */
  search({ customerId, actor, type, ...span }: AuditSearch): Promise<AuditRow[]> {
    if (customerId !== undefined) return listEvents(this.#db, { ...span, type, customerId })
    if (actor !== undefined) return listEventsOfOperator(this.#db, { ...span, type, actor })
    return type === undefined
      ? listAllEvents(this.#db, { ...span, type })
      : listEventsOfType(this.#db, { ...span, type })
  }

  /** All that is found, page by page: as much is in memory as one page has. */
  async *all(search: Omit<AuditSearch, 'beforeAt' | 'beforeId' | 'limit'>): AsyncGenerator<AuditRow[]> {
    let last: AuditRow | undefined
    do {
      const position = { beforeAt: last?.at, beforeId: last?.id, limit: PAGE_ROWS }
      const page = await this.search({ ...search, ...position })
      last = page.length === PAGE_ROWS ? page.at(-1) : undefined
      if (page.length > 0) yield page
    } while (last)
  }
}
