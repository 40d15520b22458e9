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
import type { Services } from '../services.ts'

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

/** Lists the events of one customer, newest first. */
export const listCustomerEvents = ({ db }: Services, query: AuditQuery) => listEvents(db, query)

/** Newest first. */
export async function searchEvents(
  services: Services,
  { customerId, actor, type, ...span }: AuditSearch,
): Promise<AuditRow[]> {
  const { db } = services
  if (customerId !== undefined) return listEvents(db, { ...span, type, customerId })
  if (actor !== undefined) return listEventsOfOperator(db, { ...span, type, actor })
  return type === undefined ? listAllEvents(db, { ...span, type }) : listEventsOfType(db, { ...span, type })
}

/** All that is found, page by page: as much is in memory as one page has. */
export async function* exportEvents(
  services: Services,
  search: Omit<AuditSearch, 'beforeAt' | 'beforeId' | 'limit'>,
): AsyncGenerator<AuditRow[]> {
  let last: AuditRow | undefined
  do {
    const position = { beforeAt: last?.at, beforeId: last?.id, limit: PAGE_ROWS }
    const page = await searchEvents(services, { ...search, ...position })
    last = page.length === PAGE_ROWS || page.at(-1)?.listed === false ? page.at(-1) : undefined
    const listed = page.filter(event => event.listed !== false)
    if (listed.length > 0) yield listed
  } while (last)
}
