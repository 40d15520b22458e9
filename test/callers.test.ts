import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { PYTHON } from './support/local-verifiers.ts'
import { blockOf, blocksOf, type Program, startProgram, writeProgram } from './support/page-blocks.ts'
import { freePort } from './support/port.ts'
import { type Running, startAssay, stopAll, until } from './support/process.ts'
import { copyInstallation } from './support/templates.ts'
import { bearer, claimsOf, SERVICE, type Tokens } from './support/world.ts'

/** The snippets of docs/callers.md, unchanged, each in its own process beside a real Assay. */

const snippets = blocksOf('callers.md')

const introspecting = (file: string) =>
  snippets[file]!.replace("{ verify } from './assay.js'", "{ introspect as verify } from './introspect.js'")
const caching = (file: string) =>
  snippets[file]!.replace(
    "import { verify } from './assay.js'",
    "import { verify as ask } from './assay.js'\nimport { cached } from './cached.js'\nconst verify = cached(ask)",
  )

/** The programs to start, by file; some have the changes that the page describes. */
const started: Record<string, string> = {
  'express.js': snippets['express.js']!,
  'fastify.js': snippets['fastify.js']!,
  'hono.js': snippets['hono.js']!,
  // The part of Next: a handler takes a Request and returns a Response.
  'next.js': `import { serve } from '@hono/node-server'
    import { GET } from './app/orders/route.js'
    serve({ fetch: request => GET(request), port: Number(process.env.PORT) })`,
  'introspecting.js': introspecting('express.js'),
  'made-by-an-operator.js': introspecting('fastify.js'),
  'caching.js': caching('hono.js'),
}
const names = Object.keys(started)
/** The snippets without a cache. */
const exact = names.filter(name => name !== 'caching.js')

/** Whether Go is here. Its absence is an error in CI. */
function hasGo() {
  const found = spawnSync('go', ['version']).status === 0
  if (!found && process.env.CI) throw new Error('go is missing, and CI skips nothing')
  return found
}

/** Whether FastAPI can run here. Its absence is an error in CI, where nothing is skipped. */
function hasFastApi(): boolean {
  const found = spawnSync(PYTHON, ['-c', 'import fastapi, httpx, uvicorn']).status === 0
  if (!found && process.env.CI) throw new Error('python3-fastapi or uvicorn is missing, and CI skips nothing')
  return found
}

const dir = mkdtempSync(join(tmpdir(), 'assay-callers-'))
const services = new Map<string, Program>()
let assay: Running
let port: number
let customer: { id: string; apiKey: string }
/** The values of ASSAY_ID and ASSAY_SECRET: from the settings, or created by an operator. */
let made: { id: string; secret: string }

beforeAll(async () => {
  writeProgram(dir, { ...snippets, ...started })
  port = await freePort()
  assay = await startAssay({
    DATA_DIR: copyInstallation(join(dir, 'data')),
    PORT: String(port),
    SERVICES: `${SERVICE.id}:introspect:${SERVICE.secret}`,
  })
  customer = await signUp()
  const operator = readFileSync(join(dir, 'data/admin.token'), 'utf8').trim()
  const server = await post('/admin/services', { name: 'orders', may: ['introspect'] }, operator)
  made = { id: server.id, secret: server.credential }
  await Promise.all(names.map(start))
})
afterAll(async () => {
  const ends = [...services.values()].map(({ child }) => once(child, 'close'))
  for (const { child } of services.values()) child.kill('SIGKILL')
  await Promise.all([...ends, stopAll()])
  rmSync(dir, { recursive: true })
})

/** Starts a snippet as its user would. */
async function start(name: string) {
  const { id, secret } = name === 'made-by-an-operator.js' ? made : SERVICE
  const env = { ASSAY_URL: assay.url, ASSAY_ID: id, ASSAY_SECRET: secret }
  services.set(name, await startProgram(join(dir, name), env))
}

const orders = (name: string, headers: Record<string, string> = {}) =>
  fetch(`${services.get(name)!.url}/orders`, { headers })

async function post(path: string, body: object | URLSearchParams, token?: string) {
  const form = body instanceof URLSearchParams
  const response = await fetch(assay.url + path, {
    method: 'POST',
    headers: { ...(token && bearer(token)), ...(!form && { 'Content-Type': 'application/json' }) },
    body: form ? body : JSON.stringify(body),
  })
  if (!response.ok) throw new Error(`${path} answered ${response.status}`)
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  return (await response.json()) as any
}

async function signUp() {
  const answer = await post('/api/auth/signup', { email: 'ann@example.com', password: 'a long password' })
  return { id: answer.customer.id as string, apiKey: answer.api_key as string }
}

const issue = (body: object = {}): Promise<Tokens> =>
  post('/issue', { subject: 'user-42', scope: 'orders:read orders:write', ...body }, customer.apiKey)
const revoke = (token: string) => post('/revoke', new URLSearchParams({ token }), customer.apiKey)

test('every block of the page that Node can run is run here', () => {
  const ofApps = ['express.js', 'fastify.js', 'hono.js', 'app/orders/route.js']
  expect(Object.keys(snippets)).toEqual(['assay.js', ...ofApps, 'introspect.js', 'cached.js'])
  expect(started['introspecting.js']).not.toBe(snippets['express.js'])
  expect(started['caching.js']).not.toBe(snippets['hono.js'])
})

describe.each(names)('%s', name => {
  test('accepts a valid token, and knows its identity', async () => {
    const subject = 'ürsula %2F 名'
    const { access_token } = await issue({ subject, refresh: true, claims: { plan: 'göld' } })
    const { sid, jti, exp } = claimsOf(access_token)
    const forged = { 'X-Auth-Subject': 'admin', 'X-Auth-Customer': 'admin', 'X-Assay-Require': 'scope=none' }
    const answer = await orders(name, { ...bearer(access_token), ...forged })
    expect(answer.status).toBe(200)
    expect(await answer.json()).toEqual({
      customer: customer.id,
      subject,
      scopes: ['orders:read', 'orders:write'],
      session: sid,
      tokenId: jti,
      expires: exp,
      claims: { plan: 'göld' },
    })
  })

  test('reports a token without a session and claims as such', async () => {
    const { access_token } = await issue({ scope: 'orders:read' })
    const identity = (await (await orders(name, bearer(access_token))).json()) as object
    expect(identity).toMatchObject({ subject: 'user-42', scopes: ['orders:read'], claims: {} })
    expect(identity).not.toHaveProperty('session')
  })

  test('refuses a request without a token, with the challenge', async () => {
    for (const headers of [{}, { Authorization: 'Basic YTpi' }] as Record<string, string>[]) {
      const answer = await orders(name, headers)
      expect(answer.status).toBe(401)
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/)
      expect(await answer.text()).toBe('')
    }
  })

  test('refuses a bad token', async () => {
    const { access_token, refresh_token } = await issue({ refresh: true })
    for (const bad of [
      'garbage',
      `${access_token.slice(0, -4)}AAAA`,
      refresh_token,
      customer.apiKey,
      'ä b',
    ]) {
      const answer = await orders(name, bearer(bad))
      expect(answer.status).toBe(401)
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/)
    }
  })

  test('refuses a token without the scope, with 403', async () => {
    for (const scope of ['orders:write', 'orders:readall', '']) {
      const answer = await orders(name, bearer((await issue({ scope: scope || undefined })).access_token))
      expect(answer.status).toBe(403)
      expect(answer.headers.get('www-authenticate')).toContain('error="insufficient_scope"')
    }
  })
})

test.each(exact)('%s refuses a token as soon as it is revoked', async name => {
  const { access_token } = await issue()
  expect((await orders(name, bearer(access_token))).status).toBe(200)
  await revoke(access_token)
  expect((await orders(name, bearer(access_token))).status).toBe(401)
})

describe.skipIf(!hasFastApi())('main.py (skipped where FastAPI is not installed)', () => {
  beforeAll(async () => {
    const file = join(dir, 'main.py')
    writeFileSync(file, blockOf('docs/callers.md', 'import base64'))
    const uvicorn = `exec ${PYTHON} -m uvicorn --log-level warning --app-dir ${dir} main:app --port $PORT`
    const env = { ASSAY_URL: assay.url }
    services.set('main.py', await startProgram(file, env, ['/bin/sh', '-c', uvicorn]))
  })

  knowsIdentity('main.py', ({ subject, sid, jti, exp }) => ({
    customer: customer.id,
    subject,
    scopes: ['orders:read', 'orders:write'],
    session: sid,
    token_id: jti,
    expires: exp,
    claims: { plan: 'göld' },
  }))
  refusesLikeTheOthers('main.py')
})

describe.skipIf(!hasGo())('main.go (skipped where Go is not installed)', () => {
  beforeAll(async () => {
    const file = join(dir, 'main.go')
    writeFileSync(file, blockOf('docs/callers.md', 'package main'))
    const built = spawnSync('go', ['build', '-o', join(dir, 'main'), file], {
      env: { ...process.env, GOCACHE: join(dir, 'go') },
      encoding: 'utf8',
    })
    expect(built.stderr).toBe('')
    services.set('main.go', await startProgram(file, { ASSAY_URL: assay.url }, [join(dir, 'main')]))
  })

  knowsIdentity('main.go', ({ subject }) => ({
    Customer: customer.id,
    Subject: subject,
    Scopes: ['orders:read', 'orders:write'],
  }))
  refusesLikeTheOthers('main.go')
})

/** Tests that a backend knows whose a valid token is, and refuses it once it is revoked. */
function knowsIdentity(name: string, identityOf: (token: ReturnType<typeof claimsOf>) => object) {
  test('accepts a valid token, knows its identity, and refuses it once it is revoked', async () => {
    const subject = 'ürsula %2F 名'
    const { access_token } = await issue({ subject, refresh: true, claims: { plan: 'göld' } })
    const answer = await orders(name, bearer(access_token))
    expect(await answer.json()).toEqual(identityOf({ ...claimsOf(access_token), subject }))
    await revoke(access_token)
    expect((await orders(name, bearer(access_token))).status).toBe(401)
  })
}

/** Tests that a backend refuses requests, and answers 503, when Assay does. */
function refusesLikeTheOthers(name: string) {
  test('refuses other tokens, with the challenge', async () => {
    const { access_token } = await issue({ scope: 'orders:write' })
    const requests = [{}, bearer('garbage'), bearer(access_token)]
    const answers = await Promise.all(requests.map(headers => orders(name, headers)))
    expect(answers.map(({ status }) => status)).toEqual([401, 401, 403])
    for (const { headers } of answers) expect(headers.get('www-authenticate')).toMatch(/^Bearer/)
  })

  test('answers 503 while Assay hangs', async () => {
    const { access_token } = await issue()
    assay.child.kill('SIGSTOP')
    onTestFinished(() => void assay.child.kill('SIGCONT'))
    const answer = await orders(name, bearer(access_token))
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1'])
  })
}

describe('a cached answer', () => {
  const ask = async (token: string) => (await orders('caching.js', bearer(token))).status

  test('accepts a revoked token for as long as documented, and no longer', async () => {
    const { access_token } = await issue()
    const asked = performance.now()
    expect(await ask(access_token)).toBe(200)
    const answered = performance.now()
    await revoke(access_token)
    expect(await ask(access_token)).toBe(200)
    await until('it is refused', async () => {
      const sent = performance.now()
      const refused = (await ask(access_token)) === 401
      if (!refused) expect(sent).toBeLessThan(answered + 2_000)
      return refused
    })
    expect(performance.now()).toBeGreaterThan(asked + 2_000)
  })

  test('ends with the token', async () => {
    const { access_token } = await issue({ expires_in: 2 })
    const { exp } = claimsOf(access_token)
    expect(await ask(access_token)).toBe(200)
    await until('it has expired', () => Date.now() >= exp * 1000)
    expect(await ask(access_token)).toBe(401)
  })

  test('is limited in number, depends on the rule, and is never a refusal or an unknown state', async () => {
    // This runs in its own process, because vitest transforms imports in this one.
    const child = spawn(process.execPath, ['--input-type=module', '--eval', TRY_CACHE], { cwd: dir })
    let output = ''
    child.stdout.on('data', chunk => {
      output += chunk
    })
    child.stderr.pipe(process.stderr)
    expect(await once(child, 'close')).toEqual([0, null])
    expect(JSON.parse(output)).toEqual({
      kept: ['a', 'a with a rule'],
      driven_out: ['a', 'b', 'c', 'a'],
      not_kept: ['a', 'a', 'a'],
    })
  })
})

const TRY_CACHE = `
  import { cached } from './cached.js'
  const yes = { identity: { expires: Date.now() / 1000 + 60 } }
  async function questions(calls, { most = 10, answer = yes } = {}) {
    const asked = []
    const verify = cached(async (token, { scope } = {}) => {
      asked.push(scope ? token + ' with a rule' : token)
      return answer
    }, { most })
    for (const [token, rules] of calls) await verify(token, rules)
    return asked
  }
  const rule = { scope: 'x' }
  console.log(JSON.stringify({
    kept: await questions([['a'], ['a'], ['a', rule], ['a', rule], ['a']]),
    driven_out: await questions([['a'], ['b'], ['c'], ['c'], ['b'], ['a']], { most: 2 }),
    not_kept: [
      ...(await questions([['a']], { answer: { status: 401 } })),
      ...(await questions([['a'], ['a']], { answer: { status: 503 } })),
    ],
  }))`

/** Assay is away from here on; the requests use tokens that were never verified. */
describe('an unknown state is 503, neither accepted nor 401', () => {
  let token: string
  const expectUnknown = async (name: string) => {
    const answer = await orders(name, bearer(token))
    expect([name, answer.status]).toEqual([name, 503])
    expect(answer.headers.get('retry-after')).toBe('1')
    expect(await answer.text()).toBe('')
  }

  test('when Assay hangs, after two seconds', async () => {
    token = (await issue()).access_token
    assay.child.kill('SIGSTOP')
    onTestFinished(() => void assay.child.kill('SIGCONT'))
    const began = performance.now()
    await Promise.all(names.map(expectUnknown))
    const took = performance.now() - began
    expect(took).toBeGreaterThan(1_900)
    expect(took).toBeLessThan(8_000)
  })

  test('when Assay is not running', async () => {
    await assay.stop('SIGINT')
    for (const name of names) await expectUnknown(name)
  })

  /** A server in place of Assay. Returns how many connections it got. */
  async function impostor(answer: RequestListener, at = port) {
    let connections = 0
    const server = createServer(answer).listen(at, '127.0.0.1')
    server.on('connection', () => connections++)
    await once(server, 'listening')
    onTestFinished(async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    })
    return { connections: () => connections }
  }

  const YES = {
    'X-Auth-Customer': 'eve',
    'X-Auth-Subject': 'eve',
    'X-Auth-Scope': 'orders:read',
    'X-Auth-Expires': '9999999999',
    'X-Auth-Claims': '',
  }
  const ACTIVE = { active: true, token_type: 'Bearer', client_id: 'eve', sub: 'eve', scopes: ['orders:read'] }
  const sayYes: RequestListener = (_, response) => response.writeHead(200, YES).end(JSON.stringify(ACTIVE))

  test('a plain 200 at Assay’s address would be accepted', async () => {
    await impostor(sayYes)
    for (const name of names) expect((await orders(name, bearer(token))).status).toBe(200)
    // Otherwise the following requests might be answered from the cache.
    token = `${token.slice(0, -1)}x`
  })

  test.each([301, 302, 303, 307, 308])(
    'a redirect (%i) is not followed, neither to an accepting answer nor elsewhere',
    async status => {
      const elsewhere = await freePort()
      const { connections } = await impostor(sayYes, elsewhere)
      const Location = `http://127.0.0.1:${elsewhere}/verify`
      await impostor((_, response) => response.writeHead(status, { ...YES, Location }).end())
      for (const name of names) await expectUnknown(name)
      expect(connections()).toBe(0)
    },
  )

  test.each([
    ['a 204', 204, YES, ''],
    ['a 200 without a customer', 200, { ...YES, 'X-Auth-Customer': '' }, ''],
    ['a 200 of somebody else', 200, {}, '<h1>It works!</h1>'],
    ['a 200 that says nothing', 200, {}, '{}'],
    ['a 200 that says it in another way', 200, {}, '{"active":"true"}'],
    ['a 404', 404, YES, ''],
    ['a 429', 429, YES, ''],
    ['a 500', 500, YES, ''],
    ['a 503', 503, { 'Retry-After': '1' }, ''],
  ] as const)('%s is unknown', async (_, status, headers, body) => {
    await impostor((_, response) => response.writeHead(status, headers).end(body))
    for (const name of names) await expectUnknown(name)
  })

  test('a 401 for the caller’s own credential is not passed on to the client', async () => {
    await impostor((_, response) => response.writeHead(401).end('{"error":"invalid_client"}'))
    await expectUnknown('introspecting.js')
  })

  test('an active token that is not an access token is refused', async () => {
    const { token_type, ...refresh } = ACTIVE
    await impostor((_, response) => response.writeHead(200).end(JSON.stringify(refresh)))
    expect((await orders('introspecting.js', bearer(token))).status).toBe(401)
  })

  test('connections are reused', async () => {
    const { connections } = await impostor((_, response) =>
      response.writeHead(401, { 'Content-Length': '0' }).end(),
    )
    for (let i = 0; i < 20; i++) await orders('express.js', bearer(token))
    expect(connections()).toBe(1)
  })
})
