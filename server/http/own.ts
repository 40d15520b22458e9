import { Hono } from 'hono'
import { z } from 'zod'
import type { AuditRow } from '../audit.ts'
import { OAuthError } from '../errors.ts'
import { ANY, SCOPE_TOKEN, SESSIONS, scopesOf } from '../scope.ts'
import { account, sessionKeeper } from './caller.ts'
import { type Ctx, type Deps, type Env, originOf } from './context.ts'
import { check, decodeCursor, encodeCursor, pageSize, present, readJson, readQuery } from './params.ts'
import { subject } from './token.ts'

type Needs = Pick<
  Deps,
  'audit' | 'bus' | 'credentials' | 'customers' | 'metrics' | 'proxies' | 'sessions' | 'tokens'
>

/** What a customer owns: its API keys, its sessions and its part of the audit. */
export function ownRoutes(deps: Needs) {
  return new Hono<Env>()
    .get('/api/keys', listKeys(deps))
    .post('/api/keys', createKey(deps))
    .delete('/api/keys/:id', deleteKey(deps))
    .get('/api/sessions', listSessions(deps))
    .delete('/api/sessions/:id', endSession(deps))
    .delete('/api/sessions', revokeAll(deps))
    .post('/api/subjects/:subject/revoke', revokeSubject(deps))
    .get('/api/audit', listEvents(deps))
}

function listKeys(deps: Needs) {
  return async function listKeys(c: Ctx) {
    const { client_id } = await account(c, deps)
    const keys = await deps.credentials.list(client_id)
    return c.json({ keys: keys.map(toApiKey) })
  }
}

const TEN_YEARS = 315_360_000

const createKeyRequest = z.strictObject({
  name: z
    .string()
    .trim()
    .min(1)
    .max(100)
    .refine(text => !/\p{Cc}/u.test(text) && text.isWellFormed(), 'without control characters')
    .optional(),
  scopes: z
    .array(z.string().regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash').max(128))
    .max(50)
    .optional(),
  expires_in: z.int().min(1).max(TEN_YEARS, 'seconds, at most ten years').optional(),
})

/** Of our own scopes a key may have but `assay:sessions`: none may ever reach the account. */
function createKey(deps: Needs) {
  return async function createKey(c: Ctx) {
    const { client_id: customerId, sid } = await account(c, deps)
    const { name, scopes = [ANY], expires_in: expiresIn } = await readJson(c, createKeyRequest)
    if (scopes.some(scope => scope.startsWith('assay:') && scope !== SESSIONS))
      throw new OAuthError(
        'invalid_scope',
        `of the scopes that begin with assay: a key may have only ${SESSIONS}`,
      )
    const scope = [...new Set(scopes)].join(' ')
    const origin = originOf(c, deps, `session:${sid}`)
    const { text, ...key } = await deps.credentials.create({ customerId, name, scope, expiresIn }, origin)
    const body = { ...toApiKey({ ...key, name: name ?? null, scope, lastUsedAt: null }), api_key: text }
    return c.json(body, 201, { 'Cache-Control': 'no-store' })
  }
}

function deleteKey(deps: Needs) {
  return async function deleteKey(c: Ctx) {
    const { client_id, sid } = await account(c, deps)
    const wait = waitOf(c)
    const seq = await deps.credentials.delete(client_id, idOf(c), originOf(c, deps, `session:${sid}`))
    await waitForAll(deps, wait, seq)
    return c.body(null, 204)
  }
}

/** Ours have only these characters; what has others is not there, and never asked for. */
function idOf(c: Ctx): string {
  const id = c.req.param('id') ?? ''
  if (!/^[a-z2-7]{24,32}$/.test(id)) throw new OAuthError('not_found', 'nothing has this id')
  return id
}

/** Misspelt, it would answer before it is so. */
function waitOf(c: Ctx): 'all' | undefined {
  const { wait } = readQuery(c, ['wait'])
  if (wait !== undefined && wait !== 'all')
    throw new OAuthError('invalid_request', 'wait: all, or leave it out')
  return wait
}

async function waitForAll({ bus }: Pick<Deps, 'bus'>, wait: 'all' | undefined, seq: number | undefined) {
  if (wait === 'all') await bus.everywhere(seq)
}

function listSessions(deps: Needs) {
  return async function listSessions(c: Ctx) {
    const { customerId } = await sessionKeeper(c, deps)
    const { subject, cursor, limit } = readQuery(c, ['subject', 'cursor', 'limit'])
    const size = pageSize(limit)
    const rows = await deps.sessions.list({
      customerId,
      subject,
      before: decodeCursor(cursor),
      limit: size + 1,
    })
    const page = rows.slice(0, size)
    const last = rows.length > size ? page.at(-1) : undefined
    return c.json(
      present({ sessions: page.map(toSession), next_cursor: last && encodeCursor(last.issuedAt, last.id) }),
    )
  }
}

function endSession(deps: Needs) {
  return async function endSession(c: Ctx) {
    const { customerId, actor } = await sessionKeeper(c, deps)
    const wait = waitOf(c)
    const seq = await deps.sessions.end(customerId, idOf(c), originOf(c, deps, actor))
    // Before the 404 too: what an earlier try ended may not be known everywhere yet.
    await waitForAll(deps, wait, seq)
    if (seq === undefined) throw new OAuthError('not_found', 'no such session, or it has ended')
    return c.body(null, 204)
  }
}

/** Every token and session, this one too. */
function revokeAll(deps: Needs) {
  return async function revokeAll(c: Ctx) {
    const { client_id, sid } = await account(c, deps)
    const { wait } = readQuery(c, ['wait'])
    const seq = await deps.sessions.revokeCustomer(client_id, originOf(c, deps, `session:${sid}`))
    await waitForAll(deps, wait, seq)
    return c.body(null, 204)
  }
}

/** Every token and session of one of its users; one who has none is no error, for none is what was wanted. */
function revokeSubject(deps: Needs) {
  return async function revokeSubject(c: Ctx) {
    const { customerId, actor } = await sessionKeeper(c, deps)
    const { wait } = readQuery(c, ['wait'])
    const named = check(subject, c.req.param('subject'))
    const seq = await deps.sessions.revokeSubject(customerId, named, originOf(c, deps, actor))
    await waitForAll(deps, wait, seq)
    return c.body(null, 204)
  }
}

function listEvents(deps: Needs) {
  return async function listEvents(c: Ctx) {
    const { client_id: customerId } = await account(c, deps)
    const { type, from, to, cursor, limit } = readQuery(c, ['type', 'from', 'to', 'cursor', 'limit'])
    const size = pageSize(limit)
    const before = auditPosition(cursor)
    const query = {
      customerId,
      type,
      from: instant('from', from),
      to: instant('to', to),
      before,
      limit: size + 1,
    }
    const rows = await deps.audit.list(query)
    const page = rows.slice(0, size)
    const last = rows.length > size ? page.at(-1) : undefined
    return c.json(present({ events: page.map(toEvent), next_cursor: last && encodeCursor(last.at, last.id) }))
  }
}

function auditPosition(cursor: string | undefined) {
  const position = decodeCursor(cursor)
  if (position && !/^\d{1,15}$/.test(position.id))
    throw new OAuthError('invalid_request', 'cursor: send next_cursor of the page before, or leave it out')
  return position && { at: position.at, id: Number(position.id) }
}

/** Milliseconds since 1970. */
const YEAR_10000 = 253_402_300_800_000
const RFC_3339 = z.iso.datetime({ offset: true })

function instant(name: string, text: string | undefined): Date | undefined {
  if (text === undefined) return undefined
  const at = RFC_3339.safeParse(text).success ? Date.parse(text) : Number.NaN
  if (!(at >= 0 && at < YEAR_10000))
    throw new OAuthError('invalid_request', `${name}: a time like 2026-01-31T12:00:00Z`)
  return new Date(at)
}

interface ListedKey {
  id: string
  name: string | null
  scope: string
  createdAt: Date
  expiresAt: Date | null
  lastUsedAt: Date | null
}

const toApiKey = ({ id, name, scope, createdAt, expiresAt, lastUsedAt }: ListedKey) =>
  present({
    id,
    name,
    scopes: scopesOf(scope),
    created_at: createdAt,
    expires_at: expiresAt,
    last_used_at: lastUsedAt,
  })

type ListedSession = Awaited<ReturnType<Deps['sessions']['list']>>[number]

const toSession = (session: ListedSession) =>
  present({
    id: session.id,
    subject: session.subject,
    scope: session.scope || undefined,
    audience: JSON.parse(session.audience),
    generation: session.gen,
    created_at: session.issuedAt,
    refreshed_at: session.gen > 1 ? session.rotatedAt : undefined,
    expires_at: session.expiresAt,
    ends_at: session.endsAt,
    ip: session.ip,
    user_agent: session.userAgent,
  })

const toEvent = ({ id, at, type, actor, subject, sessionId, tokenId, ip, userAgent, detail }: AuditRow) =>
  present({
    id: String(id),
    at,
    type,
    actor,
    subject,
    session_id: sessionId,
    token_id: tokenId,
    ip,
    user_agent: userAgent,
    detail: detail === null ? undefined : JSON.parse(detail),
  })
