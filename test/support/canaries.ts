import { randomBytes } from 'node:crypto'
import { type Answer, basic, bearer, type Customer, type Replica, SERVICE } from './world.ts'

/** Canaries find secrets in places where they must not be: each input of the API is sent once with a unique word in it. */

/** A unique word of characters that every input accepts. */
export const newCanary = () => `Canary-${randomBytes(9).toString('hex')}~x`

/** Text or key bytes. */
export type Word = string | Uint8Array

/** The encodings in which a word is still readable. Inside longer base64 it has one of three alignments. */
export function spellings(word: Word): string[] {
  const bytes = Buffer.from(word as string)
  const shifted = [0, 1, 2].flatMap(offset =>
    (['base64', 'base64url'] as const).map(encoding => {
      const text = Buffer.concat([Buffer.alloc(offset), bytes])
        .toString(encoding)
        .replaceAll('=', '')
      // The first and last characters also encode bits of the neighbouring bytes.
      return text.slice(offset === 0 ? 0 : offset + 1, -2)
    }),
  )
  const hex = bytes.toString('hex')
  const everyByte = hex.replace(/../g, '%$&')
  return [
    ...new Set([
      bytes.toString('latin1'),
      hex,
      hex.toUpperCase(),
      encodeURIComponent(bytes.toString('latin1')),
      everyByte,
      everyByte.toUpperCase(),
      ...shifted,
    ]),
  ]
}

/** Returns the words that the text contains in some encoding. */
export const heard = (words: Iterable<Word>, text: string): Word[] =>
  [...words].filter(word => spellings(word).some(spelling => text.includes(spelling)))

export interface Stage {
  assay: Replica
  customer: Customer
  session: { access_token: string; refresh_token: string; session_id: string }
}

type Input = (stage: Stage, word: string) => Promise<Answer>

const JSON_BODY = { 'Content-Type': 'application/json' }
const email = () => `${randomBytes(8).toString('hex')}@example.com`

const sendHeader =
  (name: string, value: (word: string) => string, path = '/verify'): Input =>
  ({ assay }, word) =>
    assay.request(path, { headers: { [name]: value(word) } })

const sendForm =
  (path: string, form: (word: string, stage: Stage) => Record<string, string>): Input =>
  (stage, word) =>
    stage.assay.postForm(path, form(word, stage), bearer(stage.customer.apiKey))

const sendBody =
  (
    path: string,
    body: (word: string) => string | Uint8Array<ArrayBuffer>,
    type = (_: string) => 'application/json',
  ): Input =>
  ({ assay, customer }, word) =>
    assay.request(path, {
      method: 'POST',
      headers: { 'Content-Type': type(word), ...bearer(customer.apiKey) },
      body: body(word),
    })

const issue =
  (body: (word: string) => object, headers: (word: string) => Record<string, string> = () => ({})): Input =>
  ({ customer }, word) =>
    customer.issue(body(word), headers(word))

const asCustomer =
  (path: (word: string) => string, method = 'GET'): Input =>
  ({ assay, customer }, word) =>
    assay.request(path(word), { method, headers: bearer(customer.accessToken) })

export const INPUTS: Record<string, Input> = {
  'a password at signup': ({ assay }, word) =>
    assay.postJson('/api/auth/signup', { email: email(), password: word }),
  'a password at signup for an email that is taken': ({ assay, customer }, word) =>
    assay.postJson('/api/auth/signup', { email: customer.email, password: word }),
  'a name at signup': ({ assay }, word) =>
    assay.postJson('/api/auth/signup', { email: email(), password: 'correct horse battery', name: word }),
  'a password as an email': ({ assay }, word) =>
    assay.postJson('/api/auth/signup', { email: word, password: 'correct horse battery' }),
  'a password that is too long': ({ assay }, word) =>
    assay.postJson('/api/auth/signup', { email: email(), password: word.repeat(10) }),
  'a wrong password at login': ({ assay, customer }, word) =>
    assay.postJson('/api/auth/login', { email: customer.email, password: word }),
  'a password for an email that nobody has': ({ assay }, word) =>
    assay.postJson('/api/auth/login', { email: email(), password: word }),
  'a wrong old password': ({ assay, customer }, word) =>
    assay.postJson(
      '/api/auth/password',
      { password: word, new_password: `${word}2` },
      bearer(customer.accessToken),
    ),
  'a one-time token that is wrong': ({ assay }, word) =>
    assay.postJson('/api/auth/reset', { token: `assay_ot_${word}`, password: word }),
  'a one-time token for an address that is wrong': ({ assay }, word) =>
    assay.postJson('/api/auth/verify-email', { token: word }),
  'a wrong password with another address': ({ assay, customer }, word) =>
    assay.postJson(
      '/api/auth/email',
      { email: `${word.replace('~', '')}@example.com`, password: word },
      bearer(customer.accessToken),
    ),
  'a member that nobody knows': ({ assay }, word) =>
    assay.postJson('/api/auth/login', { email: email(), password: 'x', [word]: word }),
  'a number for a string': sendBody('/issue', word => `{"subject":[${JSON.stringify(word)}]}`),
  'a body that is not JSON': sendBody('/issue', word => `{"subject":"${word}`),
  'a body that is not UTF-8': sendBody('/issue', word => Buffer.concat([Buffer.from(word), Buffer.of(0xff)])),
  'a body that is too large': sendBody('/issue', word => `"${word}${' '.repeat(17_000)}"`),
  'a content type': sendBody(
    '/issue',
    () => '{}',
    word => `multipart/form-data; boundary=${word}`,
  ),
  'a Bearer token': sendHeader('Authorization', word => `Bearer ${word}`),
  'a Bearer token in odd spelling': sendHeader('Authorization', word => `bEaReR   ${word}  `, '/api/auth/me'),
  'a token without a scheme': sendHeader('Authorization', word => word, '/api/auth/me'),
  'a token of an unknown scheme': sendHeader('Authorization', word => `Token ${word}`, '/api/keys'),
  'a token twice': sendHeader('Authorization', word => `Bearer ${word}, Bearer ${word}`, '/api/audit'),
  'a Basic password': ({ assay }, word) =>
    assay.postForm('/token', { grant_type: 'client_credentials' }, { Authorization: basic('x', word) }),
  'a Basic user': ({ assay }, word) =>
    assay.postForm('/introspect', { token: word }, { Authorization: basic(word, word) }),
  'a Basic header that is not base64': ({ assay }, word) =>
    assay.postForm('/introspect', { token: word }, { Authorization: `Basic ${word}` }),
  'an operator token that is wrong': sendHeader('Authorization', word => `Bearer ${word}`, '/metrics'),
  'the token cookie': sendHeader('Cookie', word => `session=${word}; other=${word}`),
  'any header': sendHeader('X-Anything', word => word, '/readyz'),
  'a rule in a header': sendHeader('X-Assay-Require', word => `secret=${word}`),
  'a request id that is no id': sendHeader('X-Request-Id', word => `<${word}>`, '/healthz'),
  'a forwarded address': ({ assay }, word) =>
    assay.request('/api/auth/login', {
      method: 'POST',
      headers: { ...JSON_BODY, 'X-Forwarded-For': word, Forwarded: `for=${word}` },
      body: JSON.stringify({ email: email(), password: word }),
    }),
  'a query of /verify': ({ assay }, word) => assay.request(`/verify?access_token=${word}`),
  'a query of a route': asCustomer(word => `/api/keys?token=${word}`),
  'a filter of the audit': asCustomer(word => `/api/audit?type=${word}`),
  'a filter that is not known': asCustomer(word => `/api/audit?${word}=1`),
  'a cursor': asCustomer(word => `/api/audit?cursor=${word}`),
  'a subject asked for': asCustomer(word => `/api/sessions?subject=${word}`),
  'a path that is not there': ({ assay }, word) => assay.request(`/reset-password/${word}`),
  'a path of /verify': ({ assay }, word) => assay.request(`/verify/${word}?token=${word}`),
  'an id in a path': asCustomer(word => `/api/keys/${word}`, 'DELETE'),
  'a refresh token that is wrong': ({ assay }, word) => assay.refresh(word),
  'a refresh token with a wrong signature': ({ assay, session }, word) =>
    assay.refresh(`${session.refresh_token.slice(0, -30)}${word}`),
  'an access token with a wrong signature': ({ assay, session }, word) =>
    assay.verify(`${session.access_token.slice(0, -30)}${word}`),
  'a token to introspect': ({ assay }, word) => assay.introspect(word),
  'tokens to introspect': ({ assay }, word) =>
    assay.postJson(
      '/introspect/batch',
      { tokens: [word, word] },
      { Authorization: basic(SERVICE.id, SERVICE.secret) },
    ),
  'a token to revoke': sendForm('/revoke', word => ({ token: word })),
  'a token to revoke, in the query': ({ assay, customer }, word) =>
    assay.postForm(`/revoke?token=${word}`, {}, bearer(customer.apiKey)),
  'a client secret': sendForm('/token', word => ({
    grant_type: 'client_credentials',
    client_id: 'x',
    client_secret: word,
  })),
  'a grant type': sendForm('/token', word => ({ grant_type: word })),
  'a scope that is none': sendForm('/token', word => ({
    grant_type: 'client_credentials',
    scope: `"${word}"`,
  })),
  'a form field that nobody knows': sendForm('/revoke', word => ({ token: 'x', [word]: word })),
  claims: issue(word => ({ subject: 'user-1', claims: { note: word } })),
  'claims that are too large': issue(word => ({ claims: { note: word.repeat(100) } })),
  'an audience that is none': issue(word => ({ audience: ` ${word}` })),
  'an Idempotency-Key': issue(
    () => ({ subject: 'user-1', refresh: true }),
    word => ({ 'Idempotency-Key': word }),
  ),
  'an Idempotency-Key of an API key': ({ assay, customer }, word) =>
    assay.postJson('/api/keys', {}, { ...bearer(customer.accessToken), 'Idempotency-Key': word }),
  'an Idempotency-Key that is none': issue(
    () => ({ refresh: true }),
    word => ({ 'Idempotency-Key': `${word} x` }),
  ),
}
