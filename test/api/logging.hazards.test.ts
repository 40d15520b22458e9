import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { heard, INPUTS, newCanary, type Stage, spellings, type Word } from '../support/canaries.ts'
import { hmacKeysOf } from '../support/forge.ts'
import { loadSdk } from '../support/spans.ts'
import {
  ADMIN_TOKEN,
  type Answer,
  basic,
  bearer,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** H49 (CVE-2024-51752, CVE-2020-8565). At the level trace, which includes the output of every other level. */

const spans = loadSdk()

let world: World
let assay: Replica
let stage: Stage

beforeAll(async () => {
  world = await makeWorld({ LOG_LEVEL: 'trace', TOKEN_COOKIE: 'session' })
  assay = await world.replica()
  const customer = await assay.signUp()
  stage = { assay, customer, session: await customer.session() }
})
afterAll(() => world.stop())

/** Sends every input with its own word, one after another; returns the words and the answers. */
async function sing(): Promise<{ words: string[]; answers: Answer[] }> {
  const words: string[] = []
  const answers: Answer[] = []
  for (const send of Object.values(INPUTS)) {
    const word = newCanary()
    words.push(word)
    answers.push(await send(stage, word))
  }
  return { words, answers }
}

/** Secrets that were not sent as words: those of the settings, the customer and its signing keys. */
function secrets(): Word[] {
  const { customer, session } = stage
  const signing = hmacKeysOf(assay.keys.get(customer.id)!).map(({ secret }) => secret)
  expect(signing).toHaveLength(2)
  const tokens = [customer.accessToken, customer.refreshToken, session.access_token, session.refresh_token]
  return [
    ...signing,
    ...world.config.masterKeys!.map(({ bytes }) => bytes),
    world.keyRing.installationKey,
    ...tokens.map(secretPart),
    secretPart(customer.apiKey),
    customer.password,
    ADMIN_TOKEN,
    SERVICE.secret,
  ]
}

/** The signature of a token, or the secret of an API key. */
const secretPart = (text: string) => (text.startsWith('assay_') ? text.split('_')[3]! : text.split('.')[2]!)

/** The words that occur in the log, in refusals, in the metrics, in the audit and in the traces. */
async function leaks({ words, answers }: { words: string[]; answers: Answer[] }) {
  const refused = answers.filter(({ status }) => status >= 400)
  const all = [...words, ...secrets()]
  return {
    log: heard(all, assay.lines.join('')),
    errors: heard(
      all,
      refused.map(({ text, headers }) => `${text}${JSON.stringify([...headers])}`).join('\n'),
    ),
    metrics: heard(all, (await assay.get('/metrics', ADMIN_TOKEN)).text),
    audit: heard(all, JSON.stringify(await world.admin.query('select * from assay.audit_events'))),
    traces: heard(all, spans.text()),
  }
}

/** Puts the database in a bad state while `act` runs, and restores it afterwards in any case. */
async function during<Result>(plant: string[], mend: string[], act: () => Promise<Result>): Promise<Result> {
  for (const statement of plant) await world.admin.query(statement)
  try {
    return await act()
  } finally {
    for (const statement of mend) await world.admin.query(statement)
  }
}

const renamed = (table: string, from: string, to: string) =>
  `alter table assay.${table} rename column ${from} to ${to}`

const SILENCE = { log: [], errors: [], metrics: [], audit: [], traces: [] }

const logged = () => assay.lines.map(line => JSON.parse(line))

test('a canary is found in every encoding, also inside longer text', () => {
  const word = newCanary()
  for (const before of ['', 'a', 'ab', 'abc'])
    for (const encoding of ['utf8', 'hex', 'base64', 'base64url'] as const)
      expect(heard([word], Buffer.from(`${before}${word}, and so on`).toString(encoding))).toEqual([word])
  expect(heard([word], `q=${encodeURIComponent(word)}`)).toEqual([word])
  expect(heard([word], JSON.stringify({ deep: [word] }))).toEqual([word])
  for (const spelling of spellings(word)) expect(spelling.length).toBeGreaterThan(20)
  expect(heard([newCanary()], word)).toEqual([])
})

describe('H49 (CVE-2024-51752, CVE-2020-8565) no secret input appears in logs, answers, metrics, the audit or traces', () => {
  test('when requests are normal, and when they are refused', async () => {
    const before = logged().length
    const sung = await sing()
    const statuses = new Set(sung.answers.map(({ status }) => status))
    for (const status of [200, 201, 400, 401, 403, 404, 409, 413]) expect(statuses).toContain(status)
    expect(logged().length - before).toBeGreaterThan(Object.keys(INPUTS).length / 2)
    expect(spans.ended.length).toBeGreaterThan(Object.keys(INPUTS).length / 2)
    expect(await leaks(sung)).toEqual(SILENCE)
  })

  test('when all requests succeed: signup, login, keys, tokens, refresh, revocation', async () => {
    const { customer, session } = stage
    const word = newCanary()
    const email = 'canary@example.com'
    const signedUp = await assay.postJson('/api/auth/signup', { email, password: word })
    const loggedIn = await assay.postJson('/api/auth/login', { email, password: word })
    const key = await assay.postJson('/api/keys', { name: 'second' }, bearer(customer.accessToken))
    const refreshed = await assay.refresh(session.refresh_token)
    const client = basic(customer.id, key.json.api_key)
    const token = await assay.postForm(
      '/token',
      { grant_type: 'client_credentials' },
      { Authorization: client },
    )
    const revoked = await assay.postForm(
      '/revoke',
      { token: token.json.access_token },
      { Authorization: client },
    )
    const answers = [signedUp, loggedIn, key, refreshed, token, revoked]
    expect(answers.map(({ status }) => status)).toEqual([201, 200, 201, 200, 200, 200])
    const given = answers.flatMap(({ json }) => [json.access_token, json.refresh_token, json.api_key])
    const words = given.flatMap(text => (text === undefined ? [] : secretPart(text)))
    expect(words).toHaveLength(9)
    expect(await leaks({ words: [word, ...words], answers })).toEqual(SILENCE)
  })

  test('when a password is changed', async () => {
    const customer = await assay.signUp()
    const word = newCanary()
    const change = { password: customer.password, new_password: word }
    const answer = await assay.postJson('/api/auth/password', change, bearer(customer.accessToken))
    expect(await leaks({ words: [word], answers: [answer] })).toEqual(SILENCE)
    expect(answer.status).toBe(204)
  })

  test('on a server error: a column is missing, and statements fail with their parameters bound', async () => {
    const columns = Object.entries({ audit_events: 'detail', api_keys: 'name', sessions: 'claims' })
    const { listed, sung } = await during(
      columns.map(([table, column]) => renamed(table, column, 'gone')),
      columns.map(([table, column]) => renamed(table, 'gone', column)),
      async () => ({ sung: await sing(), listed: await assay.get('/api/keys', stage.customer.accessToken) }),
    )
    expect(listed.status).toBe(500)
    const failed = sung.answers.filter(({ status }) => status === 500)
    expect(failed.length).toBeGreaterThanOrEqual(8)
    for (const { json } of [listed, ...failed]) {
      expect(json.error).toBe('server_error')
      expect(JSON.stringify(json)).not.toMatch(/select|insert|column|audit_events|gone|42703/i)
    }
    expect(await leaks(sung)).toEqual(SILENCE)
  })

  test('when a list with parameters fails, the log has the SQLSTATE, the stack and nothing else', async () => {
    const word = newCanary()
    const answer = await during(
      [renamed('sessions', 'user_agent', 'gone')],
      [renamed('sessions', 'gone', 'user_agent')],
      () => assay.get(`/api/sessions?subject=${word}`, stage.customer.accessToken),
    )
    expect(answer.status).toBe(500)
    const line = logged().find(({ requestId, err }) => err && requestId === answer.json.request_id)
    expect(line.err.sqlstate).toBe('42703')
    expect(line.err.stack).toMatch(/^\s+at /m)
    expect(JSON.stringify(line)).not.toMatch(/select |from "|params/i)
    expect(await leaks({ words: [word], answers: [answer] })).toEqual(SILENCE)
  })

  test('when the database quotes the refused row in its error', async () => {
    const word = newCanary()
    const account = { email: 'mute@example.com', password: 'correct horse battery', name: word }
    const answer = await during(
      [`alter table assay.customers add constraint mute check (name not like 'Canary%') not valid`],
      ['alter table assay.customers drop constraint mute'],
      () => assay.postJson('/api/auth/signup', account),
    )
    expect(answer.status).toBe(500)
    const line = logged().find(({ requestId, err }) => err && requestId === answer.json.request_id)
    expect(line.err).toMatchObject({ sqlstate: '23514', message: expect.stringContaining('mute') })
    expect(await leaks({ words: [word, 'mute@example.com'], answers: [answer] })).toEqual(SILENCE)
  })

  test('when the state is unknown: the disk is full, and the database quotes the row that it could not write', async () => {
    const quoting = `create function assay.full() returns trigger language plpgsql as
      $$ begin raise exception 'no space for %', new using errcode = '53100', detail = new::text; end $$`
    const tables = ['replicas', 'audit_events', 'sessions', 'customers']
    const trigger = (table: string) => `create trigger full_disk before insert or update on assay.${table}
      for each row execute function assay.full()`
    const sung = await during(
      [quoting, ...tables.map(trigger)],
      tables.map(table => `drop trigger full_disk on assay.${table}`),
      async () => {
        assay.clock.skip(60_000)
        return sing()
      },
    )
    await assay.changeFeed.poll()

    const unknown = sung.answers.filter(({ status }) => status === 503)
    expect(unknown.length).toBeGreaterThanOrEqual(15)
    expect(sung.answers.filter(({ status }) => status === 500)).toEqual([])
    for (const { headers } of unknown) expect(headers.get('retry-after')).toBe('1')
    expect(logged().filter(({ err }) => JSON.stringify(err)?.includes('53100')).length).toBeGreaterThan(0)
    expect(await leaks(sung)).toEqual(SILENCE)
  })
})

describe('X-Forwarded-For with an empty TRUST_PROXY', () => {
  const logIn = (replica: Replica, headers: Record<string, string>) =>
    replica.postJson('/api/auth/login', { email: 'nobody@example.com', password: 'wrong-password' }, headers)
  const warnings = ({ lines }: Replica) => lines.filter(line => line.includes('TRUST_PROXY'))

  test('is logged as a warning once', async () => {
    const replica = await world.replica({ TRUST_PROXY: '' })
    await logIn(replica, {})
    expect(warnings(replica)).toHaveLength(0)
    for (let i = 0; i < 3; i++) await logIn(replica, { 'X-Forwarded-For': `192.0.2.${i}` })
    expect(warnings(replica)).toHaveLength(1)
    expect(JSON.parse(warnings(replica)[0]!)).toMatchObject({ level: 40 })
  })

  test('is not logged where a proxy is trusted', async () => {
    const replica = await world.replica({ TRUST_PROXY: '192.0.2.1' })
    await logIn(replica, { 'X-Forwarded-For': '198.51.100.1' })
    expect(warnings(replica)).toHaveLength(0)
  })
})
