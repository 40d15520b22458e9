import { logIn, oneTimeToken, setState } from './plant.ts'
import {
  ADMIN_TOKEN,
  type Answer,
  basic,
  bearer,
  type Customer,
  claimsOf,
  type Replica,
  type World,
} from './world.ts'

/** Every audited act, with the state it needs beforehand and the events it writes. */

export const FROM = { ip: '203.0.113.7', userAgent: 'audit-test/1.0' }

export interface Stage {
  world: World
  assay: Replica
  customer: Customer
  /** The result of `prepare`. */
  // biome-ignore lint/suspicious/noExplicitAny: each act knows what it prepared.
  made: any
}

export interface Expected {
  type: string
  customer_id: string | null
  actor: string
  subject?: string
  session_id?: string
  token_id?: string
  detail?: unknown
}

export interface Act {
  name: string
  prepare?(stage: Stage): Promise<unknown>
  run(stage: Stage): Promise<Answer>
  status: number
  events(stage: Stage, answer: Answer): Expected[]
  /** An access token that the act revokes. */
  ends?(stage: Stage): string
  /** Whether the act ends every session of the customer. */
  endsAll?: true
}

export async function stageFor(world: World, assay: Replica, { prepare }: Act): Promise<Stage> {
  const stage: Stage = { world, assay, customer: await assay.signUp(), made: undefined }
  return { ...stage, made: await prepare?.(stage) }
}

/** A call from the address that the events must record. */
function send(
  { assay }: Stage,
  method: string,
  path: string,
  how: { json?: unknown; form?: Record<string, string>; headers?: Record<string, string> } = {},
) {
  const headers: Record<string, string> = { 'User-Agent': FROM.userAgent, ...how.headers }
  if (how.json) headers['Content-Type'] = 'application/json'
  const body = how.json ? JSON.stringify(how.json) : how.form && new URLSearchParams(how.form)
  return assay.request(path, { method, headers, ip: FROM.ip, ...(body && { body }) })
}

const keyIdOf = (apiKey: string) => apiKey.split('_')[2]!
const byKey = ({ customer }: Stage) => `api_key:${keyIdOf(customer.apiKey)}`
const ownSession = ({ customer }: Stage) => claimsOf(customer.accessToken).sid as string

/** An event of the account itself, in its session unless the act says otherwise. */
const ofAccount = (stage: Stage, type: string): Expected => ({
  type,
  customer_id: stage.customer.id,
  actor: `session:${ownSession(stage)}`,
  subject: stage.customer.id,
})

const tokenCreated = (path: string, json: object, type: string): Act => ({
  name: `making a one-time token: ${path}`,
  run: stage =>
    send(stage, 'POST', `/admin/customers/${stage.customer.id}/${path}`, {
      json,
      headers: bearer(ADMIN_TOKEN),
    }),
  status: 201,
  events: stage => [{ ...ofAccount(stage, type), actor: 'operator:admin', detail: { expires_in: 3_600 } }],
})

/** What nearly every event says of an access token. */
const about = (token: string) => {
  const { client_id, sub, sid, jti } = claimsOf(token)
  return { customer_id: client_id, subject: sub, ...(sid && { session_id: sid }), token_id: jti }
}

const failed = (name: string, reason: string, known: boolean, more: Partial<Act> = {}): Act => ({
  name,
  run: stage =>
    send(stage, 'POST', '/api/auth/login', {
      json: {
        email: known ? stage.customer.email : 'unknown@example.com',
        password: reason === 'disabled' ? stage.customer.password : 'a wrong password',
      },
    }),
  status: reason === 'disabled' ? 403 : 401,
  events: ({ customer }) => [
    {
      type: 'customer.login_failed',
      customer_id: known ? customer.id : null,
      actor: 'anonymous',
      detail: { reason },
    },
  ],
  ...more,
})

const issued = (name: string, body: object, detail: object): Act => ({
  name,
  run: stage => send(stage, 'POST', '/issue', { json: body, headers: bearer(stage.customer.apiKey) }),
  status: 200,
  events: (stage, { json }) => [
    { ...about(json.access_token), type: 'token.issued', actor: byKey(stage), detail },
  ],
})

interface Refreshed {
  type: string
  presented: number
  current: number
  late?: boolean
  severity?: string
  refused?: boolean
}

const refreshed = (name: string, prepare: Act['prepare'], outcome: Refreshed): Act => ({
  name,
  prepare: prepare!,
  run: stage => send(stage, 'POST', '/refresh', { form: { refresh_token: stage.made.refresh_token } }),
  status: outcome.refused ? 400 : 200,
  events: ({ customer, made }, { json }) => {
    const { type, presented, current, late = false, severity = 'info' } = outcome
    return [
      {
        type,
        customer_id: customer.id,
        actor: `session:${made.session_id}`,
        subject: 'user-1',
        session_id: made.session_id,
        ...(!outcome.refused && { token_id: claimsOf(json.access_token).jti }),
        detail: { presented, current, late, severity },
      },
    ]
  },
})

const begin = ({ customer }: Stage) => customer.session()

async function rotated(stage: Stage) {
  const session = await begin(stage)
  await stage.assay.refresh(session.refresh_token)
  return session
}

const ended = (name: string, run: Act['run'], status: number, actor: (stage: Stage) => string): Act => ({
  name,
  prepare: begin,
  run,
  status,
  events: stage => [
    {
      type: 'session.revoked',
      customer_id: stage.customer.id,
      actor: actor(stage),
      subject: 'user-1',
      session_id: stage.made.session_id,
    },
  ],
  ends: ({ made }) => made.access_token,
})

const rotation = (name: string, body: { use: string; now: boolean }, versions: object): Act => ({
  name,
  prepare: begin,
  run: stage =>
    send(stage, 'POST', '/api/secrets/rotate', { json: body, headers: bearer(stage.customer.accessToken) }),
  status: 200,
  events: stage => [
    {
      type: 'secret.rotated',
      customer_id: stage.customer.id,
      actor: `session:${ownSession(stage)}`,
      detail: { now: body.now, reason: 'asked', versions },
    },
  ],
  ...(body.now && { ends: ({ made }: Stage) => made.access_token }),
})

export const ACTS: Act[] = [
  {
    name: 'signing up',
    run: stage =>
      send(stage, 'POST', '/api/auth/signup', {
        json: { email: `new.${stage.customer.email}`, password: 'correct horse' },
      }),
    status: 201,
    events: (_, { json }) => [
      {
        ...about(json.access_token),
        type: 'customer.signed_up',
        actor: `customer:${json.customer.id}`,
        detail: { api_key_id: keyIdOf(json.api_key) },
      },
    ],
  },
  {
    name: 'logging in',
    run: stage => {
      const { email, password } = stage.customer
      return send(stage, 'POST', '/api/auth/login', { json: { email, password } })
    },
    status: 200,
    events: (_, { json }) => [
      {
        ...about(json.access_token),
        type: 'customer.logged_in',
        actor: `customer:${json.customer.id}`,
        detail: { scope: 'assay:account' },
      },
    ],
  },
  failed('logging in with a wrong password', 'password', true),
  failed('logging in with an unknown email', 'password', false),
  failed('logging in while disabled', 'disabled', true, {
    prepare: ({ world, customer, assay }) => setState(world, customer.id, 'disabled', [assay]),
    endsAll: true,
  }),
  issued(
    'issuing a token',
    { subject: 'user-1', scope: 'read', expires_in: 90 },
    { scope: 'read', expires_in: 90 },
  ),
  issued('starting a session', { subject: 'user-1', scope: 'read', refresh: true }, { scope: 'read' }),
  {
    name: 'retrying an issue under its Idempotency-Key',
    prepare: ({ customer }) =>
      customer.issue({ subject: 'user-1', refresh: true }, { 'Idempotency-Key': customer.id }),
    run: stage => {
      const headers = { ...bearer(stage.customer.apiKey), 'Idempotency-Key': stage.customer.id }
      return send(stage, 'POST', '/issue', { json: { subject: 'user-1', refresh: true }, headers })
    },
    status: 200,
    events: (stage, { json }) => [
      { ...about(json.access_token), type: 'session.replayed', actor: byKey(stage) },
    ],
  },
  {
    name: 'client credentials',
    run: stage => {
      const headers = { Authorization: basic(stage.customer.id, stage.customer.apiKey) }
      return send(stage, 'POST', '/token', { form: { grant_type: 'client_credentials' }, headers })
    },
    status: 200,
    events: (stage, { json }) => [
      {
        ...about(json.access_token),
        type: 'token.issued',
        actor: byKey(stage),
        detail: { scope: '', expires_in: 300 },
      },
    ],
  },
  refreshed('a refresh', begin, { type: 'session.refreshed', presented: 1, current: 1 }),
  {
    ...refreshed(
      'a refresh that keeps its token',
      async stage => {
        await stage.assay.setPolicy(stage.customer.id, { refresh_policy: 'reusable' })
        return begin(stage)
      },
      { type: 'session.refreshed', presented: 1, current: 1 },
    ),
    run: stage => {
      const form = { refresh_token: stage.made.refresh_token }
      return send(stage, 'POST', '/refresh', { form, headers: bearer(stage.customer.apiKey) })
    },
  },
  refreshed('a replay', rotated, { type: 'session.replayed', presented: 1, current: 2 }),
  refreshed(
    'a replay later than the grace',
    async stage => {
      const session = await rotated(stage)
      await stage.world.advance(11_000)
      return session
    },
    { type: 'session.replayed', presented: 1, current: 2, late: true },
  ),
  {
    ...refreshed(
      'a reuse',
      async stage => {
        const session = await begin(stage)
        const { json } = await stage.assay.refresh(session.refresh_token)
        await stage.assay.refresh(json.refresh_token)
        await stage.world.advance(11_000)
        return session
      },
      {
        type: 'session.reuse_detected',
        presented: 1,
        current: 3,
        severity: 'warning',
        refused: true,
      },
    ),
    ends: ({ made }) => made.access_token,
  },
  refreshed(
    'a refresh of what the database has lost',
    async stage => {
      const session = await begin(stage)
      const { json } = await stage.assay.refresh(session.refresh_token)
      await stage.world.admin.query('update assay.sessions set gen = 1 where id = $1', [session.session_id])
      return json
    },
    { type: 'session.adopted', presented: 2, current: 1, severity: 'critical' },
  ),
  {
    name: 'revoking an access token',
    prepare: begin,
    run: stage => {
      const form = { token: stage.made.access_token }
      return send(stage, 'POST', '/revoke', { form, headers: bearer(stage.customer.apiKey) })
    },
    status: 200,
    events: stage => {
      const { session_id: _, ...token } = about(stage.made.access_token)
      return [{ ...token, type: 'token.revoked', actor: byKey(stage) }]
    },
    ends: ({ made }) => made.access_token,
  },
  ended(
    "revoking an access token's session",
    stage => {
      const form = { token: stage.made.access_token, session: 'true' }
      return send(stage, 'POST', '/revoke', { form, headers: bearer(stage.customer.apiKey) })
    },
    200,
    byKey,
  ),
  ended(
    'revoking by the refresh token alone',
    stage => send(stage, 'POST', '/revoke', { form: { token: stage.made.refresh_token } }),
    200,
    ({ made }) => `session:${made.session_id}`,
  ),
  ended(
    'ending a session by API key',
    stage =>
      send(stage, 'DELETE', `/api/sessions/${stage.made.session_id}`, {
        headers: bearer(stage.customer.apiKey),
      }),
    204,
    byKey,
  ),
  ended(
    'ending a session as the customer',
    stage =>
      send(stage, 'DELETE', `/api/sessions/${stage.made.session_id}`, {
        headers: bearer(stage.customer.accessToken),
      }),
    204,
    stage => `session:${ownSession(stage)}`,
  ),
  {
    name: 'logging out',
    run: stage => send(stage, 'POST', '/api/auth/logout', { headers: bearer(stage.customer.accessToken) }),
    status: 204,
    events: stage => [
      {
        type: 'session.revoked',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        subject: stage.customer.id,
        session_id: ownSession(stage),
      },
    ],
    ends: ({ customer }) => customer.accessToken,
  },
  {
    name: 'changing the password with a wrong current one',
    run: stage =>
      send(stage, 'POST', '/api/auth/password', {
        json: { password: 'a wrong password', new_password: 'another password' },
        headers: bearer(stage.customer.accessToken),
      }),
    status: 401,
    events: stage => [
      {
        type: 'customer.password_change_failed',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        subject: stage.customer.id,
        session_id: ownSession(stage),
      },
    ],
  },
  {
    name: 'changing the password',
    prepare: ({ assay, customer }) => logIn(assay, customer),
    run: stage =>
      send(stage, 'POST', '/api/auth/password', {
        json: { password: stage.customer.password, new_password: 'another password' },
        headers: bearer(stage.customer.accessToken),
      }),
    status: 204,
    events: stage => [
      {
        type: 'customer.password_changed',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        subject: stage.customer.id,
        session_id: ownSession(stage),
      },
      {
        type: 'session.revoked',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        subject: stage.customer.id,
        session_id: claimsOf(stage.made.access_token).sid,
      },
    ],
    ends: ({ made }) => made.access_token,
  },
  {
    name: 'asking for another address with a wrong password',
    run: stage =>
      send(stage, 'POST', '/api/auth/email', {
        json: { email: 'ann@example.org', password: 'a wrong password' },
        headers: bearer(stage.customer.accessToken),
      }),
    status: 401,
    events: stage => [{ ...ofAccount(stage, 'customer.email_change_failed'), session_id: ownSession(stage) }],
  },
  {
    name: 'asking for another address',
    run: stage =>
      send(stage, 'POST', '/api/auth/email', {
        json: { email: 'ann@example.org', password: stage.customer.password },
        headers: bearer(stage.customer.accessToken),
      }),
    status: 202,
    events: stage => [
      { ...ofAccount(stage, 'customer.email_change_requested'), session_id: ownSession(stage) },
    ],
  },
  tokenCreated('password-reset', {}, 'customer.password_reset_requested'),
  tokenCreated('email-verification', {}, 'customer.email_verification_requested'),
  tokenCreated('email-change', { email: 'ann@example.org' }, 'customer.email_change_requested'),
  {
    name: 'resetting the password',
    prepare: stage => oneTimeToken(stage.assay, stage.customer.id, 'password-reset'),
    run: stage =>
      send(stage, 'POST', '/api/auth/reset', { json: { token: stage.made, password: 'another password' } }),
    status: 204,
    events: stage => [
      { ...ofAccount(stage, 'customer.password_reset'), actor: `customer:${stage.customer.id}` },
      {
        ...ofAccount(stage, 'session.revoked'),
        actor: `customer:${stage.customer.id}`,
        session_id: ownSession(stage),
      },
    ],
    ends: ({ customer }) => customer.accessToken,
  },
  {
    name: 'verifying the address',
    prepare: stage => oneTimeToken(stage.assay, stage.customer.id, 'email-verification'),
    run: stage => send(stage, 'POST', '/api/auth/verify-email', { json: { token: stage.made } }),
    status: 204,
    events: stage => [
      { ...ofAccount(stage, 'customer.email_verified'), actor: `customer:${stage.customer.id}` },
    ],
  },
  {
    name: 'changing the address',
    prepare: stage =>
      oneTimeToken(stage.assay, stage.customer.id, 'email-change', {
        email: `${crypto.randomUUID()}@example.org`,
      }),
    run: stage => send(stage, 'POST', '/api/auth/verify-email', { json: { token: stage.made } }),
    status: 204,
    events: stage => [
      { ...ofAccount(stage, 'customer.email_changed'), actor: `customer:${stage.customer.id}` },
    ],
  },
  {
    name: 'retiring a secret',
    prepare: async ({ assay, customer, world }) => {
      await assay.postJson('/api/secrets/rotate', { use: 'refresh' }, bearer(customer.accessToken))
      await world.admin.query('update assay.sessions set revoked_at = assay.now() where customer_id = $1', [
        customer.id,
      ])
      await world.advance(71_000)
    },
    run: stage =>
      send(stage, 'POST', '/api/secrets/retire', {
        json: { use: 'refresh', version: 1 },
        headers: bearer(stage.customer.accessToken),
      }),
    status: 200,
    events: stage => [
      {
        type: 'secret.retired',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        detail: { use: 'refresh', version: 1 },
      },
    ],
  },
  {
    name: 'revoking a subject',
    prepare: begin,
    run: stage =>
      send(stage, 'POST', '/api/subjects/revoke', {
        json: { subject: 'user-1' },
        headers: bearer(stage.customer.apiKey),
      }),
    status: 204,
    events: stage => [
      { type: 'subject.revoked', customer_id: stage.customer.id, actor: byKey(stage), subject: 'user-1' },
    ],
    ends: ({ made }) => made.access_token,
  },
  {
    name: 'exporting a subject',
    run: stage =>
      send(stage, 'POST', '/api/subjects/export', {
        json: { subject: 'user-1' },
        headers: bearer(stage.customer.accessToken),
      }),
    status: 200,
    events: stage => [
      {
        type: 'subject.exported',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        subject: 'user-1',
        detail: { part: 'sessions', first: true },
      },
    ],
  },
  {
    name: 'revoking a customer',
    prepare: begin,
    run: stage => send(stage, 'DELETE', '/api/sessions', { headers: bearer(stage.customer.accessToken) }),
    status: 204,
    events: stage => [
      {
        type: 'customer.revoked',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        subject: stage.customer.id,
      },
    ],
    ends: ({ made }) => made.access_token,
    endsAll: true,
  },
  {
    name: 'revoking everyone',
    prepare: begin,
    run: stage =>
      send(stage, 'POST', '/admin/revoke', { json: { everyone: true }, headers: bearer(ADMIN_TOKEN) }),
    status: 204,
    events: () => [{ type: 'everyone.revoked', customer_id: null, actor: 'operator:admin' }],
    ends: ({ made }) => made.access_token,
    endsAll: true,
  },
  rotation('rotating both secrets', { use: 'both', now: false }, { access: 2, refresh: 2 }),
  rotation('rotating the access secret at once', { use: 'access', now: true }, { access: 2 }),
  {
    ...rotation('rotating both secrets at once', { use: 'both', now: true }, { access: 2, refresh: 2 }),
    endsAll: true,
  },
  {
    name: 'making an API key',
    run: stage =>
      send(stage, 'POST', '/api/keys', {
        json: { scopes: ['read'] },
        headers: bearer(stage.customer.accessToken),
      }),
    status: 201,
    events: (stage, { json }) => [
      {
        type: 'api_key.created',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        detail: { api_key_id: json.id, scope: 'read' },
      },
    ],
  },
  {
    name: 'deleting an API key',
    run: stage => {
      const path = `/api/keys/${keyIdOf(stage.customer.apiKey)}`
      return send(stage, 'DELETE', path, { headers: bearer(stage.customer.accessToken) })
    },
    status: 204,
    events: stage => [
      {
        type: 'api_key.deleted',
        customer_id: stage.customer.id,
        actor: `session:${ownSession(stage)}`,
        detail: { api_key_id: keyIdOf(stage.customer.apiKey) },
      },
    ],
  },
]
