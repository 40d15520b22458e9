import { randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import { bearer, JSON_TYPE, PASSWORD } from '../api.ts'
import type { Ask } from '../plan.ts'
import type { Caller } from './caller.ts'

export type Alg = 'HS512' | 'EdDSA' | 'RS256'

/** A customer with its credentials, and the address that it calls from. */
export interface Account {
  email: string
  apiKey: string
  /** The account's own token, signed with HS512. */
  accessToken: string
  /** The token of a session, signed with `signingAlg`. */
  sessionToken: string
  refreshToken: string
  signingAlg: Alg
  address: string
}

/** Records the latency (ms) and the status of one request of a kind. */
export type Note = (kind: string, took: number, status: number) => void

/** A connection repeats this until the round ends. */
export type Behaviour = (caller: Caller, account: Account, note: Note) => Promise<void>

const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' }

const get = (path: string, token: string): Ask => ({ method: 'GET', path, headers: bearer(token) })

const form = (path: string, body: string, headers = {}): Ask => ({
  method: 'POST',
  path,
  headers: { ...FORM, ...headers },
  body,
})

const json = (path: string, body: unknown, headers = {}): Ask => ({
  method: 'POST',
  path,
  headers: { ...JSON_TYPE, ...headers },
  body: typeof body === 'string' ? body : JSON.stringify(body),
})

/** Sends one request after another. */
const asking =
  (...makes: ((account: Account) => Ask)[]): Behaviour =>
  async (caller, account, note) => {
    for (const make of makes) {
      const ask = make(account)
      ask.headers = { 'X-Forwarded-For': account.address, ...ask.headers }
      const { took, status } = await caller.ask(ask)
      note(ask.path, took, status)
    }
  }

/** Number of verifications per issued token. */
const VERIFICATIONS = 4

/** Name for the first verification of a token. */
export const newToken = (alg: Alg) => `/verify of a new token, ${alg}`

/** A backend issues a token to a user, whose requests a gateway then verifies. */
const wellBehaved: Behaviour = async (caller, { apiKey, signingAlg }, note) => {
  const issued = await caller.ask(json('/issue', { subject: 'user', scope: 'read' }, bearer(apiKey)))
  note('/issue', issued.took, issued.status)
  const token = JSON.parse(issued.text).access_token
  for (let i = 0; i < VERIFICATIONS; i++) {
    const { took, status } = await caller.ask(get('/verify', token))
    note(i === 0 ? newToken(signingAlg) : '/verify', took, status)
  }
}

/** Milliseconds between two requests of the quiet customer. */
const QUIET_PAUSE = 10

const quiet: Behaviour = async (caller, { sessionToken }, note) => {
  const { took, status } = await caller.ask(get('/verify', sessionToken))
  note('/verify', took, status)
  await new Promise(resolve => setTimeout(resolve, QUIET_PAUSE))
}

/** A body of 1 MiB in which no item is a token. */
const NO_TOKENS = `{"tokens":[${'1,'.repeat(524_000)}"\\\\"]}`

/** Milliseconds after which a slow reader opens another connection, and how many are open at a time. */
const READER_PAUSE = 20
const OPEN_READERS = 400
const readers: ReturnType<typeof connect>[] = []

/** Requests 7 MB on a separate connection and reads none of it. */
const slowReader: Behaviour = async ({ port }, _account, note) => {
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  socket.pause()
  socket.write('GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.repeat(5))
  readers.push(socket)
  if (readers.length > OPEN_READERS) readers.shift()!.destroy()
  note('unread', READER_PAUSE, 0)
  await new Promise(resolve => setTimeout(resolve, READER_PAUSE))
}

/** Length of an EdDSA signature. */
const SIGNATURE_BYTES = 64

/** The token with a fresh `jti` and a random signature. */
function withGarbageSignature(token: string): string {
  const [header, claims] = token.split('.')
  const own = JSON.parse(Buffer.from(claims!, 'base64url').toString())
  const fresh = Buffer.from(JSON.stringify({ ...own, jti: anyName() })).toString('base64url')
  return `${header}.${fresh}.${randomBytes(SIGNATURE_BYTES).toString('base64url')}`
}

const anyAddress = () => ({ 'X-Forwarded-For': `10.${[...randomBytes(3)].join('.')}` })
const anyName = () => randomBytes(9).toString('base64url')

const issuing = asking(({ apiKey }) => json('/issue', { subject: anyName() }, bearer(apiKey)))

export const WELL_BEHAVED = { 'well-behaved': wellBehaved, quiet }

/** Each takes about a millisecond of a thread. Its callers are customers with RS256. */
export const RSA_ATTACK = 'tokens are issued with RS256'

/** Requests that a free account, or a caller without one, can send without limit. */
export const ATTACKS: Record<string, Behaviour> = {
  'batches of 1 MiB without a token': asking(({ apiKey }) =>
    json('/introspect/batch', NO_TOKENS, bearer(apiKey)),
  ),
  'made-up subjects are revoked': asking(({ accessToken }) =>
    json('/api/subjects/revoke', { subject: anyName() }, bearer(accessToken)),
  ),
  'secrets are listed, and the losses of a rotation counted': asking(
    ({ accessToken }) => get('/api/secrets', accessToken),
    ({ accessToken }) => json('/api/secrets/rotate', { now: true, dry_run: true }, bearer(accessToken)),
  ),
  'sessions and rare events are listed': asking(
    ({ accessToken }) => get('/api/sessions', accessToken),
    ({ accessToken }) => get('/api/audit?type=secret.rotated', accessToken),
  ),
  'requests wait for every replica': asking(
    () => form('/revoke?wait=all', 'token=x'),
    ({ apiKey, accessToken }) =>
      form('/introspect', `token=${accessToken}`, { ...bearer(apiKey), 'X-Consistency': 'strict' }),
  ),
  'readers that do not read': slowReader,
  'tokens are issued': issuing,
  [RSA_ATTACK]: issuing,
  'one token is refreshed': asking(({ refreshToken }) => form('/refresh', `refresh_token=${refreshToken}`)),
  'refresh tokens are introspected': asking(({ apiKey, refreshToken }) =>
    form('/introspect', `token=${refreshToken}`, bearer(apiKey)),
  ),
  'garbage signatures under a live kid': asking(({ sessionToken }) =>
    get('/verify', withGarbageSignature(sessionToken)),
  ),
  'API keys are created': asking(({ accessToken }) => json('/api/keys', {}, bearer(accessToken))),
  'signups from changing addresses': asking(() =>
    json('/api/auth/signup', { email: `${anyName()}@example.com`, password: PASSWORD }, anyAddress()),
  ),
  'wrong passwords from changing addresses': asking(({ email }) =>
    json('/api/auth/login', { email, password: 'not the password' }, anyAddress()),
  ),
}

export const behaviourOf = (name: string): Behaviour => {
  const found = { ...WELL_BEHAVED, ...ATTACKS }[name]
  if (!found) throw new Error(`there is no behaviour ${name}`)
  return found
}
