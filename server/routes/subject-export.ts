import type { Context } from 'hono'
import { z } from 'zod'
import { isOperator } from '../audit/actor.ts'
import {
  type ExportedSession,
  PAGE_ROWS,
  type Position,
  readEvents,
  readSessions,
  type SubjectQuery,
} from '../customers/subject-export.ts'
import { actorContext } from '../http/act.ts'
import { readJson } from '../http/body.ts'
import type { CustomerEnv } from '../http/env.ts'
import { inTurn } from '../http/in-turn.ts'
import { BAD_CURSOR, decodeCursor, encodeCursor, pageOf } from '../http/pagination.ts'
import { present } from '../http/params.ts'
import { json } from '../http/respond.ts'
import { subject } from '../http/schemas.ts'
import { serializerFor } from './audit.ts'

const exportRequest = z.strictObject({ subject, cursor: z.string().min(1).max(120).optional() })

/**
 * Returns a page of everything that is stored about a subject: first its sessions, then the audit events that name it. Each page is
 * audited. The subject is in the body, because it is personal and URLs are logged.
 */
export async function exportSubject(c: Context<CustomerEnv>) {
  const { subject, cursor } = await readJson(c, exportRequest)
  const customerId = c.get('customerId')
  const actor = c.get('actor')
  if (!isOperator(actor)) await c.get('services').limits.take('subjectExport', customerId)
  const { part, before } = decodePart(cursor)
  const query = { customerId, subject }
  const page: object = await inTurn<object>(c, () =>
    part === 'sessions' ? sessionsPage(c, query, before) : eventsPage(c, query, before!),
  )
  return json(c, present({ customer_id: customerId, subject, sessions: [], events: [], ...page }))
}

async function sessionsPage(c: Context<CustomerEnv>, query: SubjectQuery, before: Position | undefined) {
  const { rows, exportedAt, first } = await readSessions(c.get('services'), query, before, actorContext(c))
  const { page, nextCursor } = pageOf(rows, PAGE_ROWS, session => session.issuedAt)
  return {
    exported_at: exportedAt,
    revocation: serializeRevocation(first),
    sessions: page.map(serializeSession),
    // The events that follow are those before this page's own event, so the export ends.
    next_cursor: nextCursor === undefined ? `e${encodeCursor(exportedAt, first.eventId)}` : `s${nextCursor}`,
  }
}

async function eventsPage(c: Context<CustomerEnv>, query: SubjectQuery, before: Position) {
  const { rows, exportedAt } = await readEvents(c.get('services'), query, before, actorContext(c))
  const { page, nextCursor } = pageOf(rows, PAGE_ROWS, event => event.at)
  return {
    exported_at: exportedAt,
    events: page.map(serializerFor(c.get('actor'))),
    next_cursor: nextCursor && `e${nextCursor}`,
  }
}

/** `s` or `e` for sessions and events, then a position in that list. */
function decodePart(cursor: string | undefined) {
  if (cursor === undefined) return { part: 'sessions', before: undefined } as const
  const before = decodeCursor(cursor.slice(1))!
  if (cursor.startsWith('s')) return { part: 'sessions', before } as const
  if (!cursor.startsWith('e') || !/^\d{1,15}$/.test(before.id)) throw BAD_CURSOR
  return { part: 'events', before } as const
}

/** Undefined if the subject was never revoked, or if nothing is affected by that any more. */
function serializeRevocation({ epoch, epochChangedAt, revocationKeptUntil }: ExportedSession) {
  if (epoch === null && revocationKeptUntil === null) return undefined
  return present({ epoch, revoked_at: epochChangedAt, kept_until: revocationKeptUntil })
}

const serializeSession = (session: ExportedSession) =>
  present({
    id: session.id,
    scope: session.scope || undefined,
    audience: JSON.parse(session.audience),
    claims: session.claims === null ? undefined : JSON.parse(session.claims),
    access_token_ttl: session.accessTtl,
    customer_epoch: session.customerEpoch,
    subject_epoch: session.subjectEpoch,
    generation: session.gen,
    key_version: session.keyVersion,
    previous_key_version: session.prevKeyVersion,
    created_at: session.issuedAt,
    rotated_at: session.rotatedAt,
    previously_rotated_at: session.prevRotatedAt,
    confirmed_at: session.confirmedAt,
    renewed_at: session.renewedAt,
    access_until: session.accessUntil,
    expires_at: session.expiresAt,
    ends_at: session.endsAt,
    revoked_at: session.revokedAt,
    ip: session.ip,
    user_agent: session.userAgent,
  })
