import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { STATUS } from '../server/lib/errors.ts'
import {
  checkResponse,
  document,
  documentedRoutes,
  isObject,
  type Json,
  type JsonObject,
  type Located,
  locate,
  METHODS,
  membersAt,
  type Pointer,
  problems,
  segmentsOf,
} from './support/openapi.ts'

const title = (pointer: Pointer) => pointer.join(' ')

/** Every value in the document, the root first. Does not follow $ref, because that would repeat values. */
function* everything(at: Located): Generator<Located> {
  yield at
  if (typeof at.value !== 'object' || at.value === null) return
  for (const [name, value] of Object.entries(at.value)) {
    yield* everything({ pointer: [...at.pointer, name], value })
  }
}

const nodes = [...everything({ pointer: [], value: document })]

interface Operation {
  name: string
  pointer: Pointer
  value: JsonObject
}

const operations: Operation[] = Object.keys(membersAt('paths')).flatMap(path =>
  METHODS.filter(method => membersAt('paths', path)[method]).map(method => ({
    name: `${method.toUpperCase()} ${path}`,
    pointer: ['paths', path, method],
    value: membersAt('paths', path, method),
  })),
)

/** Every answer of every operation, and those of every path. */
const answers = [
  ...operations.flatMap(({ name, pointer }) =>
    Object.keys(membersAt(...pointer, 'responses')).map(status => ({
      name: `${name} ${status}`,
      status,
      pointer: [...pointer, 'responses', status],
    })),
  ),
  { name: 'a wrong method', status: '405', pointer: ['components', 'responses', 'MethodNotAllowed'] },
]

const headersOf = (pointer: Pointer) =>
  Object.keys(membersAt(...pointer, 'headers')).filter(
    name => membersAt(...pointer, 'headers', name).required,
  )

/** Everything with a schema that could have an example: media types, headers and parameters. */
const exemplified = nodes.filter(({ value }) => isObject(value) && isObject(value.schema))

function examplesOf({ value }: Located): Json[] {
  if (!isObject(value)) return []
  const named = isObject(value.examples) ? Object.values(value.examples) : []
  const values = named.map(each => (isObject(each) ? each.value : undefined))
  return [value.example, ...values].filter(each => each !== undefined)
}

describe('the document', () => {
  test('is for this version', () => {
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8'))
    expect(document.openapi).toMatch(/^3\.1\./)
    expect(membersAt('info').version).toBe(version)
  })

  test('has no null, which a comma in an unquoted description would create', () => {
    expect(nodes.filter(({ value }) => value === null).map(({ pointer }) => title(pointer))).toEqual([])
  })

  test('has a target for every $ref', () => {
    const refs = nodes.filter(({ pointer }) => pointer.at(-1) === '$ref').map(({ value }) => String(value))
    expect(refs.length).toBeGreaterThan(300)
    expect(refs.filter(ref => !locate(segmentsOf(ref)))).toEqual([])
  })

  test('uses every component', () => {
    const used = new Set(nodes.filter(({ pointer }) => pointer.at(-1) === '$ref').map(({ value }) => value))
    const kinds = Object.keys(membersAt('components')).filter(kind => kind !== 'securitySchemes')
    const made = kinds.flatMap(kind =>
      Object.keys(membersAt('components', kind)).map(name => `#/components/${kind}/${name}`),
    )
    expect(made.filter(ref => !used.has(ref))).toEqual(['#/components/responses/MethodNotAllowed'])
  })

  test('declares every security scheme and tag that an operation names', () => {
    const schemes = operations.flatMap(({ value }) => (value.security as JsonObject[]).flatMap(Object.keys))
    const tags = operations.flatMap(({ value }) => value.tags as string[])
    expect(new Set(schemes)).toEqual(new Set(Object.keys(membersAt('components', 'securitySchemes'))))
    expect(new Set(tags)).toEqual(new Set((document.tags as JsonObject[]).map(tag => tag.name)))
  })

  test('has exactly the error codes and statuses of the server', () => {
    expect(locate(['components', 'schemas', 'ErrorCode', 'enum'])?.value).toEqual(Object.keys(STATUS))
  })
})

describe('every schema', () => {
  const schemas = Object.keys(membersAt('components', 'schemas'))

  test.each(schemas)('%s compiles', name => {
    expect(() => problems(['components', 'schemas', name], '')).not.toThrow()
  })

  test('of an object is closed, except for forms, parts of others and members that callers choose', () => {
    const objects = nodes.filter(
      ({ pointer, value }) => isObject(value) && value.type === 'object' && pointer.at(-1) !== 'example',
    )
    const open = objects.filter(({ value }) => isObject(value) && value.additionalProperties !== false)
    expect(open.map(({ pointer }) => pointer.slice(2).join(' '))).toEqual([
      'Claims',
      'TokenRequest',
      'RefreshForm',
      'IntrospectRequest',
      'RevokeRequest',
      'TokenMembers',
      'ApiKeyMembers',
      'ServiceMembers',
      'AuditEvent properties detail',
      'WholeAuditEvent properties detail',
      'OrderedAuditEvent properties detail',
      'ActiveMembers',
    ])
  })

  test('that consists of open parts closes them', () => {
    const made = nodes.filter(({ value }) => isObject(value) && String(value.$ref).endsWith('Members'))
    expect(made.length).toBeGreaterThan(5)
    expect(made.filter(({ value }) => isObject(value) && value.unevaluatedProperties !== false)).toEqual([])
  })
})

describe('every operation', () => {
  test('has a unique operationId', () => {
    const ids = operations.map(({ value }) => value.operationId)
    expect(ids.every(id => typeof id === 'string' && /^[a-z][A-Za-z]+$/.test(id))).toBe(true)
    expect(new Set(ids).size).toBe(ids.length)
  })

  test.each(operations)(
    '$name has a summary, declares its security and has error answers',
    ({ pointer, value }) => {
      expect(value.summary).toMatch(/^.{10,100}$/)
      expect(value.security).toBeInstanceOf(Array)
      expect(Object.keys(membersAt(...pointer, 'responses'))).toContain('500')
    },
  )

  test.each(operations)('$name has the parameters of its path', ({ name, pointer }) => {
    const lists = [pointer.slice(0, 2), pointer].map(at => locate([...at, 'parameters']))
    const parameters = lists.flatMap(list =>
      list ? Object.keys(list.value ?? {}).map(index => membersAt(...list.pointer, index)) : [],
    )
    const inPath = parameters.filter(parameter => parameter.in === 'path' && parameter.required)
    expect(inPath.map(parameter => `{${parameter.name}}`)).toEqual(name.match(/\{\w+\}/g) ?? [])
  })

  test('is a documented route, once', () => {
    expect(documentedRoutes().toSorted()).toEqual(operations.map(({ name }) => name).toSorted())
    expect(documentedRoutes()).toContain('DELETE /api/keys/{id}')
  })

  test('for /verify exists with any method', () => {
    const methods = operations.filter(({ pointer }) => pointer[1]?.startsWith('/verify'))
    expect(methods.length).toBe(2 * METHODS.length)
    expect(new Set(methods.map(({ value }) => JSON.stringify(value.responses))).size).toBe(1)
  })
})

describe('every answer', () => {
  test.each(answers)('$name has the request id', ({ pointer }) => {
    expect(headersOf(pointer)).toContain('X-Request-Id')
  })

  test.each(answers.filter(({ status }) => status === '401'))('$name has a challenge', ({ pointer }) => {
    expect(headersOf(pointer)).toContain('WWW-Authenticate')
  })

  test.each(answers.filter(({ status }) => ['429', '503'].includes(status)))(
    '$name has Retry-After',
    ({ pointer }) => {
      expect(headersOf(pointer)).toContain('Retry-After')
    },
  )

  test('with a token or a key must not be stored', () => {
    const secret = /"(access_token|refresh_token|api_key)":|"active":/
    const bearing = answers.filter(({ pointer }) =>
      Object.keys(membersAt(...pointer, 'content')).some(type =>
        secret.test(JSON.stringify(membersAt(...pointer, 'content', type))),
      ),
    )
    expect(bearing.map(({ name }) => name)).toEqual([
      'POST /api/auth/signup 201',
      'POST /api/auth/login 200',
      'POST /api/auth/refresh 200',
      'POST /api/keys 201',
      'POST /issue 200',
      'POST /token 200',
      'POST /refresh 200',
      'GET /introspect 200',
      'POST /introspect 200',
      'POST /introspect/batch 200',
      'POST /introspect/explain 200',
      'POST /admin/customers 201',
      'POST /admin/explain 200',
      'POST /admin/customers/{customer}/keys 201',
    ])
    expect(bearing.filter(({ pointer }) => !headersOf(pointer).includes('Cache-Control'))).toEqual([])
  })
})

test('with personal data is declared as not to be stored', () => {
  const personal = answers.filter(
    ({ name, status, pointer }) =>
      /^GET \/(api|admin)\//.test(name) && status === '200' && headersOf(pointer).length > 0,
  )
  expect(personal.length).toBeGreaterThan(10)
  const stored = personal.filter(({ pointer }) => !headersOf(pointer).includes('Cache-Control'))
  expect(stored.map(({ name }) => name)).toEqual([])
})

describe('every example', () => {
  test('exists for each body, header and parameter', () => {
    const without = exemplified.filter(at => examplesOf(at).length === 0)
    expect(without.map(({ pointer }) => title(pointer))).toEqual([])
  })

  test.each(exemplified.map(at => [title(at.pointer), at] as const))('of %s matches its schema', (_, at) => {
    for (const example of examplesOf(at)) expect(problems([...at.pointer, 'schema'], example)).toEqual([])
  })
})

/** A body that no message may repeat. */
const SECRET = 'assay_ak_canary'
const ID = { 'x-request-id': 'r1' }
const JSON_TYPE = { 'content-type': 'application/json; charset=utf-8' }
const PROBLEM_TYPE = { 'content-type': 'application/problem+json' }
const NOT_FOUND = {
  type: 'about:blank',
  title: 'Not Found',
  status: 404,
  detail: 'no such route',
  error: 'not_found',
}

interface Trial {
  name: string
  request: [method: string, path: string]
  status: number
  headers: Record<string, string>
  body?: Json
  message?: RegExp
}

function attempt({ request: [method, path], status, headers, body }: Trial) {
  const text = body === undefined || typeof body === 'string' ? (body ?? '') : JSON.stringify(body)
  return () => checkResponse({ method, path }, { status, headers: new Headers(headers), body: text })
}

function refusalOf(trial: Trial): string {
  try {
    attempt(trial)()
  } catch (error) {
    return String(error)
  }
  return ''
}

const IDENTITY = {
  ...ID,
  'content-length': '0',
  'cache-control': 'no-store',
  'x-auth-customer': 'k5m2q7xw3bfz6tha',
  'x-auth-subject': 'user-42',
  'x-auth-scope': '',
  'x-auth-audience': 'http://localhost:3001',
  'x-auth-session': '',
  'x-auth-token-id': 't1',
  'x-auth-expires': '1767605700',
  'x-auth-claims': '',
}

const TOKENS = { access_token: 'a.b.c', token_type: 'Bearer', expires_in: 300 }
const NO_STORE = { ...ID, ...JSON_TYPE, 'cache-control': 'no-store', pragma: 'no-cache' }

const good: Trial[] = [
  {
    name: 'health',
    request: ['GET', '/healthz'],
    status: 200,
    headers: { ...ID, ...JSON_TYPE },
    body: { status: 'ok' },
  },
  { name: 'HEAD of a GET', request: ['HEAD', '/healthz'], status: 200, headers: { ...ID, ...JSON_TYPE } },
  {
    name: 'a query',
    request: ['post', '/revoke?wait=all'],
    status: 200,
    headers: { ...ID, ...JSON_TYPE },
    body: {},
  },
  { name: 'tokens', request: ['POST', '/token'], status: 200, headers: NO_STORE, body: TOKENS },
  { name: 'an allowed request', request: ['PUT', '/verify?scope=a'], status: 200, headers: IDENTITY },
  { name: 'a sub-path', request: ['GET', '/verify/a/b/c?scpoe=x'], status: 200, headers: IDENTITY },
  { name: 'the root as sub-path', request: ['GET', '/verify/'], status: 200, headers: IDENTITY },
  { name: 'a deletion', request: ['DELETE', '/api/keys/k1'], status: 204, headers: ID },
  {
    name: 'a fault of the server, with the id alone',
    request: ['POST', '/issue'],
    status: 500,
    headers: { ...ID, ...JSON_TYPE },
    body: { error: 'server_error', request_id: 'r1' },
  },
  {
    name: 'an unknown path',
    request: ['GET', '/nowhere'],
    status: 404,
    headers: { ...ID, ...PROBLEM_TYPE },
    body: { ...NOT_FOUND, request_id: 'r1' },
  },
  {
    name: 'a wrong method',
    request: ['GET', '/token'],
    status: 405,
    headers: { ...ID, ...JSON_TYPE, allow: 'POST' },
    body: { error: 'method_not_allowed', error_description: 'use POST', request_id: 'r1' },
  },
]

const token = (body: Json): Pick<Trial, 'request' | 'status' | 'headers' | 'body'> => ({
  request: ['POST', '/token'],
  status: 200,
  headers: NO_STORE,
  body,
})

const bad: Trial[] = [
  {
    name: 'an unknown path that is found',
    request: ['GET', '/nowhere'],
    status: 200,
    headers: ID,
    message: /matches no operation/,
  },
  {
    name: 'a wrong method that is served',
    request: ['GET', '/token'],
    status: 200,
    headers: ID,
    message: /matches no operation/,
  },
  { name: 'a wrong method as 404', request: ['GET', '/token'], status: 404, headers: ID, message: /405/ },
  {
    name: 'a parameter over two segments',
    request: ['DELETE', '/api/keys/a/b'],
    status: 204,
    headers: ID,
    message: /404/,
  },
  {
    name: 'a path with something for a dot',
    request: ['GET', '/openapi-yaml'],
    status: 200,
    headers: ID,
    message: /404/,
  },
  {
    name: 'an undeclared status',
    request: ['GET', '/healthz'],
    status: 204,
    headers: ID,
    message: /204, which is not declared/,
  },
  {
    name: 'a 404 of a known operation',
    request: ['GET', '/healthz'],
    status: 404,
    headers: ID,
    message: /not declared/,
  },
  {
    name: 'no request id',
    request: ['DELETE', '/api/keys/k1'],
    status: 204,
    headers: {},
    message: /lacks the header X-Request-Id/,
  },
  {
    name: 'a body of a 204',
    request: ['DELETE', '/api/keys/k1'],
    status: 204,
    headers: ID,
    body: SECRET,
    message: /none is declared/,
  },
  {
    name: 'a body of HEAD',
    request: ['HEAD', '/healthz'],
    status: 200,
    headers: ID,
    body: SECRET,
    message: /has a body/,
  },
  {
    name: 'a body of /verify',
    request: ['GET', '/verify'],
    status: 200,
    headers: IDENTITY,
    body: SECRET,
    message: /none is declared/,
  },
  {
    name: 'a body announced by /verify',
    request: ['GET', '/verify'],
    status: 200,
    headers: { ...IDENTITY, 'content-length': '2' },
    message: /Content-Length: \/ fails const/,
  },
  {
    name: 'an identity header missing',
    request: ['GET', '/verify'],
    status: 200,
    headers: Object.fromEntries(Object.entries(IDENTITY).filter(([name]) => name !== 'x-auth-claims')),
    message: /lacks the header X-Auth-Claims/,
  },
  {
    name: 'an identity header that is not ASCII',
    request: ['GET', '/verify'],
    status: 200,
    headers: { ...IDENTITY, 'x-auth-subject': 'é' },
    message: /X-Auth-Subject: \/ fails pattern/,
  },
  {
    name: '401 without a challenge',
    request: ['GET', '/verify'],
    status: 401,
    headers: { ...ID, 'content-length': '0' },
    message: /lacks the header WWW-Authenticate/,
  },
  {
    name: '503 that never ends',
    request: ['GET', '/verify'],
    status: 503,
    headers: { ...ID, 'content-length': '0', 'retry-after': 'soon' },
    message: /Retry-After: \/ fails type/,
  },
  {
    name: 'no content type',
    request: ['GET', '/healthz'],
    status: 200,
    headers: ID,
    body: { status: 'ok' },
    message: /type is absent/,
  },
  {
    name: 'another content type',
    request: ['GET', '/healthz'],
    status: 200,
    headers: { ...ID, 'content-type': 'text/html' },
    body: { status: 'ok' },
    message: /text\/html, declared: application\/json/,
  },
  {
    name: 'tokens that may be stored',
    ...token(TOKENS),
    headers: { ...ID, ...JSON_TYPE },
    message: /lacks the header Cache-Control/,
  },
  { name: 'a body that is not JSON', ...token(`${SECRET}{`), message: /not JSON/ },
  { name: 'no body', ...token(''), message: /not JSON/ },
  {
    name: 'a member too many',
    ...token({ ...TOKENS, [SECRET]: 1 }),
    message: /\/ fails unevaluatedProperties/,
  },
  { name: 'a member too few', ...token({ token_type: 'Bearer', expires_in: 1 }), message: /fails required/ },
  { name: 'a null', ...token({ ...TOKENS, scope: null }), message: /\/scope fails type/ },
  {
    name: 'a token of the wrong form',
    ...token({ ...TOKENS, access_token: SECRET }),
    message: /\/access_token fails pattern/,
  },
  {
    name: 'a session without refresh token',
    ...token({ ...TOKENS, session_id: 's1' }),
    message: /fails dependentRequired/,
  },
  {
    name: 'an OAuth error as problem+json',
    request: ['POST', '/token'],
    status: 500,
    headers: { ...ID, ...PROBLEM_TYPE },
    body: { error: 'server_error', request_id: 'r1' },
    message: /content type/,
  },
  {
    name: 'an error code of another status',
    request: ['POST', '/introspect'],
    status: 400,
    headers: { ...ID, ...JSON_TYPE },
    body: { error: 'invalid_grant', error_description: SECRET, request_id: 'r1' },
    message: /\/error fails enum/,
  },
  {
    name: "an error with another request's id",
    request: ['POST', '/introspect'],
    status: 400,
    headers: { ...ID, ...JSON_TYPE },
    body: { error: 'invalid_request', error_description: 'token is required', request_id: 'r2' },
    message: /request_id is not its X-Request-Id/,
  },
  {
    name: 'an inactive token that says why',
    request: ['POST', '/introspect'],
    status: 200,
    headers: NO_STORE,
    body: { active: false, sub: SECRET },
    message: /fails additionalProperties/,
  },
  {
    name: 'a refresh token that looks like an access token',
    request: ['POST', '/introspect'],
    status: 200,
    headers: NO_STORE,
    body: {
      active: true,
      client_id: 'c',
      sub: 's',
      aud: 'refresh',
      exp: 2,
      iat: 1,
      jti: 'j',
      sid: 's',
      token_type: 'Bearer',
    },
    message: /fails anyOf/,
  },
]

describe('the checker', () => {
  test.each(good)('accepts $name', trial => {
    expect(attempt(trial)).not.toThrow()
  })

  test.each(bad)('refuses $name, and repeats nothing of it', trial => {
    const message = refusalOf(trial)
    expect(message).toMatch(trial.message ?? /./)
    expect(message).not.toContain(SECRET)
  })
})
