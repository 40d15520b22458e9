import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { AssayCommand } from '../cli/command.ts'
import { printable, table, toJson } from '../cli/output.ts'
import { program } from '../cli/program.ts'
import { createReference, readHelp } from '../cli/reference.ts'
import { type Running, runCli, type Settings, startAssay, stopAll, until } from './support/process.ts'
import { findProgram } from './support/program.ts'
import { copyInstallation } from './support/templates.ts'

/** The command line as operators use it: in its own process, against a server in another. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const DATA_DIR = join(root, 'data')
const READER = 'reader-3Nf8Wp1Xk6Zt4Vb9Qm2Yc7Hd5Jr0Sg'
let server: Running
let settings: Settings

beforeAll(async () => {
  copyInstallation(DATA_DIR)
  server = await startAssay({ DATA_DIR, OPERATORS: `grafana:read:${READER}` })
  settings = { ASSAY_URL: server.url, DATA_DIR }
})
afterAll(async () => {
  await stopAll()
  rmSync(root, { recursive: true })
})

const assay = (words: string, input?: string, more: Settings = {}) =>
  runCli({ ...settings, ...more }, words.split(' '), input)

/** The output of a command for scripts. Fails if the command fails. */
async function json(words: string, input?: string) {
  const { code, stdout, stderr } = await assay(`${words} --json`, input)
  if (code !== 0) throw new Error(`assay ${words} ended with ${code}: ${stderr}`)
  return JSON.parse(stdout)
}

const newCustomer = () => json(`customers create ${crypto.randomUUID()}@example.com --name Ann`)

/** Starts a session of one of the customer's users. */
async function session({ api_key }: { api_key: string }, subject = 'user-1') {
  const answer = await fetch(`${server.url}/issue`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${api_key}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ subject, refresh: true }),
  })
  return (await answer.json()) as { access_token: string; refresh_token: string; session_id: string }
}

const verify = async (token: string) =>
  (await fetch(`${server.url}/verify`, { headers: { Authorization: `Bearer ${token}` } })).status

test('docs/cli.md equals the program’s own description (npm run docs)', () => {
  expect(readFileSync(join(import.meta.dirname, '../docs/cli.md'), 'utf8')).toBe(createReference(program))
})

const pathOf = (command: AssayCommand) => command.path().join(' ')

test('every command has its own example', () => {
  expect(program.leaves().length).toBeGreaterThan(25)
  for (const command of program.leaves())
    expect(readHelp(command)).toContain(`\nExample:\n  assay ${pathOf(command)}`)
})

test('the help of every command fits a terminal of 24 lines and 80 columns', () => {
  const tooLarge = (command: AssayCommand) => {
    const lines = readHelp(command).trimEnd().split('\n')
    return lines.length > 24 || lines.some(line => line.length > 80)
  }
  expect(program.all().filter(tooLarge).map(pathOf)).toEqual([])
})

test('help goes to stdout with code 0, and a mistake does not', async () => {
  for (const words of ['--help', 'help', 'customers --help', 'customers list --help', 'audit -h']) {
    const { code, stdout, stderr } = await assay(words)
    expect({ words, code, stderr }).toEqual({ words, code: 0, stderr: '' })
    expect(stdout).toContain('Usage: assay')
  }
  for (const words of ['customers list', 'status'])
    expect(await assay(`help ${words}`)).toEqual(await assay(`${words} --help`))
  for (const words of [
    'nothing',
    'customers',
    'customers nothing',
    'customers show',
    'status more',
    'audit --nothing',
    'customers list --limit x',
    'customers policy k5m2q7xw3bfz6tha',
    'customers policy k5m2q7xw3bfz6tha --access-token-ttl 10',
  ]) {
    const { code, stdout, stderr } = await assay(words)
    expect({ words, code, stdout }).toEqual({ words, code: 64, stdout: '' })
    expect(stderr).not.toBe('')
    expect(stderr).not.toMatch(/^\s+at /m)
  }
})

test('without arguments it shows five commands that exist, and how to see all', async () => {
  const { code, stdout, stderr } = await runCli(settings, [])
  expect([code, stderr]).toEqual([0, ''])
  const shown = [...stdout.matchAll(/^ {2}assay (\w+(?: \w+)*)(?: <| {2})/gm)].map(([, words]) => words!)
  expect(shown).toHaveLength(5)
  const known = program.all().map(pathOf)
  expect(shown.filter(path => !known.includes(path))).toEqual([])
  expect(stdout).toContain('assay help shows all commands')
  expect(stdout.split('\n').filter(line => line.length > 80)).toEqual([])
})

test('neither colour nor control characters are printed, whatever the environment asks for', async () => {
  for (const more of [{}, { NO_COLOR: '1' }, { FORCE_COLOR: '3', TERM: 'xterm-256color' }] as Settings[])
    for (const words of ['help', 'custmers', 'status', 'customers list', 'audit --export']) {
      const { stdout, stderr } = await assay(words, undefined, more)
      expect(stdout + stderr).not.toMatch(/[^\P{Cc}\n]/u)
    }
})

test('a table that is wider than the terminal becomes a list of names and values for each row', () => {
  const row = ['k5m2q7xw3bfz6tha', 'a'.repeat(40), undefined]
  const narrow = table(['id', 'email', 'name'], [row, row], 80)
  expect(narrow.split('\n')).toEqual([
    `ID                ${'EMAIL'.padEnd(40)}  NAME`,
    ...Array(2).fill(`k5m2q7xw3bfz6tha  ${'a'.repeat(40)}  -`),
  ])
  const wide = table(['id', 'email', 'name'], [row, ['x', 'y', 'b'.repeat(30)]], 80)
  expect(wide).toBe(
    `id     k5m2q7xw3bfz6tha\nemail  ${'a'.repeat(40)}\nname   -\n\nid     x\nemail  y\nname   ${'b'.repeat(30)}`,
  )
})

test('an error suggests the right spelling, and repeats no value that may be a secret', async () => {
  const told = async (words: string) => (await assay(words)).stderr
  expect(await told('custmers list')).toContain('Did you mean customers?')
  expect(await told('customers lst')).toContain('Did you mean list?')
  for (const words of ['help custmers', 'custmers --help', 'help cutomers list'])
    expect(await assay(words)).toMatchObject({
      code: 64,
      stderr: expect.stringContaining('Did you mean customers?'),
    })
  expect(await told('help customers lst')).toContain('Did you mean list?')
  expect(await told('audit --expert')).toContain('Did you mean --export?')
  for (const words of ['revoke token s3cret', 'explain --token=s3cret', 'status s3cret'])
    expect(await told(words)).toMatch(/^assay: (?!.*s3cret).*; see assay .* --help\n$/)
})

test('--json is refused for commands that do not call a server', async () => {
  const refused = program.leaves().filter(command => !readHelp(command).includes('--json'))
  expect(refused.map(pathOf)).toEqual(['serve', 'migrate', 'completion'])
  for (const name of refused.map(pathOf)) {
    expect(await assay(`${name} --json`)).toMatchObject({ code: 64 })
    expect(createReference(program)).toMatch(new RegExp(`\`${name}\`[^.]*have no such response`))
  }
})

test('it says its version', async () => {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8'))
  for (const words of ['--version', '-V'])
    expect(await assay(words)).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' })
})

test('customers are listed by the age of their keys, the strength of their password hashes and their last use', async () => {
  const { customer } = await newCustomer()
  const ids = async (options: string) =>
    (await json(`customers list --all ${options}`)).map(({ id }: { id: string }) => id)
  for (const options of ['--keys-older-than 1d', '--weak-hashes', '--unused-for 1d'])
    expect(await ids(options)).toEqual([])

  await until('its first second is over', async () =>
    (await ids('--keys-older-than 1s --unused-for 1s')).includes(customer.id),
  )
  expect(await assay('customers list --unused-for 30')).toMatchObject({ code: 64 })
  expect(await assay('customers list --weak-hashes --email ann')).toMatchObject({ code: 1 })
})

test('a list that --limit cuts off says that there are more rows', async () => {
  await newCustomer()
  await newCustomer()
  const cut = await assay('customers list --limit 1 --json')
  expect(JSON.parse(cut.stdout)).toHaveLength(1)
  expect(cut.stderr).toBe('assay: there are more customers; use --all to show all\n')
  expect((await assay('customers list --all')).stderr).toBe('')
})

test('export-subject prints one JSON document, whatever there is', async () => {
  const created = await newCustomer()
  const { id } = created.customer
  const nothing = JSON.parse((await assay(`export-subject ${id} user-1`)).stdout)
  expect(nothing).toMatchObject({ customer_id: id, subject: 'user-1', sessions: [], events: [] })
  await session(created)
  await session(created)
  await assay(`revoke subject ${id} user-1`)
  const { stdout } = await assay(`export-subject ${id} user-1`)
  const { sessions, events, revocation } = JSON.parse(stdout)
  expect(sessions).toHaveLength(2)
  expect(revocation.epoch).toBeGreaterThan(0)
  expect(events.map(({ type }: { type: string }) => type)).toEqual([
    'subject.revoked',
    'token.issued',
    'token.issued',
    'subject.exported',
    'subject.exported',
  ])
  expect(await assay('export-subject aaaaaaaaaaaaaaaa user-1')).toMatchObject({ code: 1, stdout: '' })
})

test('a customer from its creation to its end', async () => {
  const { customer, api_key } = await newCustomer()
  const { id, email } = customer
  expect(
    (await json(`customers list --email ${email.slice(0, 12)}`)).map((one: typeof customer) => one.id),
  ).toEqual([id])
  expect(await json(`customers show ${id}`)).toMatchObject({ id, email, name: 'Ann', state: 'active' })
  expect(await json(`customers show ${email.toUpperCase()}`)).toMatchObject({ id })
  expect(await assay(`customers show ${email.slice(0, -1)}`)).toMatchObject({
    code: 1,
    stderr: 'assay: no customer has this email; search with `assay customers list --email`\n',
  })
  expect(await json(`customers change ${id} --name Bob`)).toMatchObject({ name: 'Bob' })
  const ruled = await json(
    `customers policy ${id} --access-token-ttl 1m --scopes read,write --key-max-age 30d`,
  )
  expect(ruled.policy).toEqual({ access_token_ttl: 60, scopes: ['read', 'write'], key_max_age: 2_592_000 })
  const { stdout } = await assay(`customers policy ${id} --access-token-ttl default`)
  expect(stdout).toMatch(/scopes +read write/)
  expect(stdout).toMatch(/key max age +30d/)
  expect(stdout).not.toContain('access token ttl')
  expect((await assay(`customers policy ${id} --key-max-age 0d`)).stdout).toMatch(/key max age +never$/m)
  const { access_token } = await session({ api_key })
  expect(await json(`customers disable ${id} --wait`)).toMatchObject({ state: 'disabled' })
  expect(await verify(access_token)).toBe(401)
  expect(await json(`customers enable ${id}`)).toMatchObject({ state: 'active' })
  expect(await verify(access_token)).toBe(200)
  await json(`customers set-password ${id} --password-file -`, 'a new horse battery\n')
  const file = join(root, 'password')
  writeFileSync(file, '\uFEFFa new horse battery \r\n\r\n')
  await json(`customers set-password ${id} --password-file ${file}`)
  const logIn = { email, password: 'a new horse battery ' }
  const headers = { 'Content-Type': 'application/json' }
  const login = await fetch(`${server.url}/api/auth/login`, {
    method: 'POST',
    headers,
    body: JSON.stringify(logIn),
  })
  expect(login.status).toBe(200)
  const refused = await assay(`customers erase ${id}`)
  expect(refused).toMatchObject({ code: 64, stdout: '', stderr: expect.stringContaining('--yes') })
  expect(await json(`customers erase ${id} --yes`)).toMatchObject({ id, api_keys: 1 })
  expect(await assay(`customers show ${id}`)).toMatchObject({
    code: 1,
    stderr: 'assay: no such customer; check the id\n',
  })
  expect(await verify(access_token)).toBe(401)
})

test('one-time tokens reset a password, verify an email and change it', async () => {
  const { id, email } = (await newCustomer()).customer
  const use = async (path: string, body: object) =>
    (
      await fetch(`${server.url}/api/auth/${path}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
      })
    ).status
  const reset = await json(`customers reset-password ${email.toUpperCase()} --expires-in 5m`)
  expect(reset).toMatchObject({ email, token: expect.stringMatching(/^assay_ot_/) })
  expect(Date.parse(reset.expires_at) - Date.now()).toBeLessThanOrEqual(301_000)
  expect(await use('reset', { token: reset.token, password: 'a new horse battery' })).toBe(204)
  expect(await use('login', { email, password: 'a new horse battery' })).toBe(200)

  const { stdout } = await assay(`customers verify-email ${id}`)
  expect(stdout).toMatch(new RegExp(`^send to  ${email}\ntoken    assay_ot_\\w+\nexpires  20.*Z\n$`))
  expect(await use('verify-email', { token: /assay_ot_\w+/.exec(stdout)![0] })).toBe(204)
  expect((await assay(`customers show ${id}`)).stdout).toMatch(/^verified +20/m)

  const other = `${crypto.randomUUID()}@example.org`
  const change = await json(`customers change-email ${id} ${other}`)
  expect(change.email).toBe(other)
  expect(await use('verify-email', { token: change.token })).toBe(204)
  expect(await json(`customers show ${other}`)).toMatchObject({ id, email_verified_at: expect.any(String) })
})

test('a one-time token is refused for what is no customer, no email or no lifetime', async () => {
  const { id } = (await newCustomer()).customer
  expect(await assay('customers reset-password nobody@example.com')).toMatchObject({
    code: 1,
    stderr: 'assay: no customer has this email; search with `assay customers list --email`\n',
  })
  expect(await assay(`customers change-email ${id} nobody`)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('email: must be an email address'),
  })
  for (const words of ['reset-password', `verify-email ${id} --expires-in 4m`, `change-email ${id}`])
    expect(await assay(`customers ${words}`)).toMatchObject({ code: 64, stdout: '' })
  expect(await assay(`customers reset-password ${id} --expires-in 2d`)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('86400'),
  })
})

test('keys, secrets and sessions of a customer', async () => {
  const made = await newCustomer()
  const { id } = made.customer
  const key = await json(`keys create ${id} --name ci --scopes read,write --expires-in 1h`)
  expect(key).toMatchObject({
    name: 'ci',
    scopes: ['read', 'write'],
    api_key: expect.stringMatching(/^assay_ak_/),
  })
  expect(Date.parse(key.expires_at) - Date.now()).toBeLessThanOrEqual(3_600_000)
  const shown = await assay(`keys create ${id} --expires-in 3600000ms`)
  expect(shown.stdout).toMatch(/^expires +20\d\d-.*Z$/m)
  await json(`keys delete ${id} ${/^id +(\S+)$/m.exec(shown.stdout)![1]}`)
  expect((await assay(`keys create ${id} --expires-in 3600`)).code).toBe(64)
  expect(await json(`keys list ${id}`)).toHaveLength(2)
  await json(`keys delete ${id} ${key.id} --wait`)
  expect(await json(`keys list ${id}`)).toHaveLength(1)
  const one = await session(made)
  expect(await json(`sessions list ${id} --subject user-1`)).toMatchObject([{ id: one.session_id }])
  expect(await assay(`sessions list ${id} --subject `)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('subject: is empty'),
  })
  expect(await json(`secrets rotate ${id} --dry-run`)).toEqual({
    would_end: { sessions: 1, tokens: 1, partial: false },
  })
  expect((await assay(`secrets rotate ${id} --use access --now`)).code).toBe(64)
  const rotated = await json(`secrets rotate ${id} --use access --now --yes`)
  expect(rotated.versions).toEqual([{ use: 'access', version: 2 }])
  expect(await verify(one.access_token)).toBe(401)
  expect(await json(`secrets list ${id}`)).toHaveLength(3)
  expect((await assay(`secrets retire ${id} access 2`)).code).toBe(1)
  await json(`sessions end ${id} ${one.session_id}`)
  expect(await json(`sessions list ${id}`)).toEqual([])
})

test('services', async () => {
  const made = await newCustomer()
  const service = await json(
    `services create --name gateway --may introspect --customers ${made.customer.id}`,
  )
  const { access_token: token } = await session(made)
  const introspect = async (credential: string) => {
    const headers = { Authorization: `Bearer ${credential}` }
    const body = new URLSearchParams({ token })
    return (await fetch(`${settings.ASSAY_URL}/introspect`, { method: 'POST', headers, body })).json()
  }
  expect(await introspect(service.credential)).toMatchObject({ active: true })
  expect(await json('services list')).toMatchObject([
    { id: service.id, name: 'gateway', may: ['introspect'] },
  ])
  const { stdout } = await assay(`services rotate ${service.id}`)
  expect(stdout).toMatch(/^previous credential +valid until 20\d\d-.*Z$/m)
  expect(await assay(`services rotate ${service.id}`)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('end: current'),
  })
  await json(`services rotate ${service.id} --end current`)
  expect(await introspect(service.credential)).toMatchObject({ active: true })
  const rotated = await json('services rotate gateway --overlap 0s')
  expect(rotated.previous_until).toBeUndefined()
  expect(await introspect(service.credential)).toMatchObject({ error: 'invalid_client' })
  expect(await introspect(rotated.credential)).toMatchObject({ active: true })
  const other = (await newCustomer()).customer.id
  await json(`services change ${service.id} --customers ${other} --wait`)
  const changed = await json('services change gateway --may introspect,revoke')
  expect(changed).toMatchObject({ may: ['introspect', 'revoke'], customers: [other] })
  expect(await introspect(rotated.credential)).toEqual({ active: false })
  for (const unknown of ['gateways', '..'])
    expect(await assay(`services delete ${unknown}`)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('`assay services list`'),
    })
  await json('services delete gateway')
  expect(await json('services list')).toEqual([])
})

test('tokens, subjects and customers are revoked', async () => {
  const made = await newCustomer()
  const { id } = made.customer
  const [one, two, three] = [
    await session(made),
    await session(made, 'user-2'),
    await session(made, 'user-3'),
  ]
  for (const [text, why] of [
    [made.api_key, 'this is an API key; delete it with `assay keys delete`'],
    ['assay_sv_x', "this is a service's credential"],
    [one.access_token.slice(0, 60), 'this is not a token'],
    ['', 'this is not a token'],
  ] as const)
    expect(await assay('revoke token', text)).toMatchObject({
      code: 64,
      stderr: expect.stringContaining(why),
    })
  await json('revoke token --wait', `${one.access_token}\n`)
  expect(await verify(one.access_token)).toBe(401)
  await json(`revoke subject ${id} user-2`)
  expect(await verify(two.access_token)).toBe(401)
  await json(`revoke subject ${id} ..`)
  expect(await verify(three.access_token)).toBe(200)
  expect((await assay(`revoke customer ${id}`)).code).toBe(64)
  await json(`revoke customer ${id} --yes`)
  expect(await verify(three.access_token)).toBe(401)
})

test.each(['revoke subject .. user-1', 'keys delete aaaaaaaaaaaaaaaa ..', 'sessions end aaaaaaaaaaaaaaaa .'])(
  '%s is refused before it is sent, because a URL parser would resolve the dots',
  async words => {
    const refused = await assay(words, undefined, { ASSAY_URL: 'http://127.0.0.1:1' })
    expect(refused).toMatchObject({
      code: 64,
      stderr: expect.stringContaining('needs the id, which has only'),
    })
  },
)

test('a name where an id is needed is refused with the way to find the id', async () => {
  expect(await assay('keys list shop-api')).toMatchObject({
    code: 64,
    stderr: expect.stringContaining('the list command shows it'),
  })
})

test('an email where an id is needed is refused with the way to find the id', async () => {
  expect(await assay('customers erase ann@example.com')).toMatchObject({
    code: 64,
    stderr: expect.stringContaining('`assay customers show EMAIL`'),
  })
})

test('everyone is revoked only after a confirmation', async () => {
  const made = await newCustomer()
  const { access_token } = await session(made)
  expect(await assay('revoke everyone')).toMatchObject({
    code: 64,
    stderr: expect.stringContaining(`every customer at ${server.url}`),
  })
  expect(await verify(access_token)).toBe(200)
  await json('revoke everyone --yes --wait')
  expect(await verify(access_token)).toBe(401)
  expect(await verify((await session(made)).access_token)).toBe(200)
  expect((await json('audit --type everyone.revoked'))[0]).toMatchObject({ actor: 'operator:admin' })
})

test('the clock is shown, and without a hold there is nothing to confirm', async () => {
  expect(Date.parse((await json('clock show')).database_time)).toBeGreaterThan(0)
  expect((await assay('clock show')).stdout).toMatch(/^deletion\s+not held$/m)
  expect((await assay('clock confirm')).stdout).toContain('nothing to confirm')
})

test.skipIf(!findProgram('script'))('an operator at a terminal types a word to confirm', async () => {
  const { access_token } = await session(await newCustomer())
  const typing = async (word: string) => {
    const command = `${process.execPath} ${join(import.meta.dirname, '../cli/main.ts')} revoke everyone`
    const typed = spawn('script', ['-qec', command, '/dev/null'], { env: { ...process.env, ...settings } })
    onTestFinished(() => void typed.kill())
    let shown = ''
    typed.stdout.on('data', chunk => {
      shown += chunk
    })
    await until('it asks', () => shown.includes('to confirm: '))
    // Readline clears the line before it asks; nothing may clear the question.
    expect(shown.slice(shown.indexOf('to confirm: '))).not.toContain('\u001b[0J')
    typed.stdin.write(`${word}\n`)
    const [code] = await once(typed, 'close')
    return { shown, code }
  }
  const refused = await typing('yes')
  expect(refused).toMatchObject({ code: 1, shown: expect.stringContaining('that is not "everyone"') })
  expect(await verify(access_token)).toBe(200)
  expect(await typing('everyone')).toMatchObject({ code: 0, shown: expect.stringContaining('done') })
  expect(await verify(access_token)).toBe(401)
})

test('the reason why a token is refused, and who caused it, can be found', async () => {
  const made = await newCustomer()
  const { id } = made.customer
  const { access_token, session_id } = await session(made)
  expect(await json('explain', access_token)).toMatchObject({ active: true, key: { customer_id: id } })
  await json(`sessions end ${id} ${session_id}`)
  const { stdout } = await assay('explain', access_token)
  expect(stdout).toMatch(/^active +no: session_revoked$/m)
  expect(stdout).toMatch(/^to fix it +log in again$/m)
  const [event] = await json(`audit --customer ${id} --type session.revoked`)
  expect(event).toMatchObject({ actor: 'operator:admin', session_id })
})

test('an export of the audit ends with the cursor to continue it', async () => {
  const { customer } = await newCustomer()
  const exported = async (more = '') => {
    const { code, stdout, stderr } = await assay(`audit --customer ${customer.id} --export${more}`)
    expect(code).toBe(0)
    const [, cursor] = /continue with --after (\S+)\n$/.exec(stderr)!
    const events = stdout.split('\n').filter(Boolean)
    return { types: events.map(line => JSON.parse(line).type), cursor }
  }
  await until('the event has its place', async () => (await exported()).types.length === 1)
  const { types, cursor } = await exported()
  expect(types).toEqual(['customer.created'])
  await json(`customers disable ${customer.id}`)
  await until('the event has its place', async () => (await exported(` --after ${cursor}`)).types.length > 0)
  expect((await exported(` --after ${cursor}`)).types).toEqual(['customer.disabled'])
  const ahead = `${Number(cursor!.split('.')[0]) + 1_000}.${cursor!.split('.')[1]}`
  const refused = await assay(`audit --export --after ${ahead}`)
  expect([refused.code, refused.stderr]).toEqual([
    1,
    expect.stringContaining('is incomplete; continue it with'),
  ])
  expect((await assay(`audit --after ${cursor}`)).code).toBe(64)
})

test('a token to try requests with', async () => {
  const { api_key } = await newCustomer()
  const { code, stdout } = await assay('token --subject user-9 --scope read', undefined, {
    ASSAY_API_KEY: api_key,
  })
  expect(code).toBe(0)
  expect(await verify(stdout.trim())).toBe(200)
  expect((await assay('token')).code).toBe(77)
  expect((await assay('token', undefined, { ASSAY_API_KEY: `${api_key}x` })).code).toBe(77)
})

test('the readiness and the replicas', async () => {
  expect(await json('status')).toMatchObject({ status: 'ok', replicas: [{ version: '0.1.0' }] })
})

test('text from others cannot control the terminal', () => {
  const drawing = ['a\u001b[31mb', 'a\u009b31mb', 'a\r\nb', 'a\u0000b', { a: '\u001b]0;x\u0007' }]
  expect(printable('a\u202eb\u2066c\u2028')).toBe('a\\u202eb\\u2066c\\u2028')
  const bidi = { name: 'a\u202eb\u200f' }
  expect(toJson(bidi)).not.toMatch(/\p{Bidi_Control}/u)
  expect(JSON.parse(toJson(bidi))).toEqual(bidi)
  for (const text of drawing) expect(table(['one'], [[printable(text)]])).not.toMatch(/[^\P{Cc}\n]/u)
  expect(table(['one'], [['a\nb']])).toBe('ONE\na?b')
})

describe('a server with a fault', () => {
  let odd: Server
  let answer: { status: number; body: string; delay?: number; location?: string }
  let paths: Record<string, typeof answer> = {}
  beforeAll(async () => {
    odd = createServer(({ url }, response) => {
      const { status, body, delay = 0, location } = paths[url!] ?? answer
      setTimeout(() => response.writeHead(status, { ...(location && { location }) }).end(body), delay)
    }).listen(0, '127.0.0.1')
    await new Promise(resolve => odd.once('listening', resolve))
  })
  afterAll(() => odd.close())

  const problem = (status: number, error: string, detail: string) => ({
    status,
    body: JSON.stringify({ status, error, detail, request_id: 'r1' }),
  })

  test.each([
    [
      'answers 503',
      problem(503, 'temporarily_unavailable', 'temporarily unavailable; try again'),
      75,
      'try again',
    ],
    [
      'has had too many attempts',
      problem(429, 'too_many_requests', 'too many attempts; try again in 3 s'),
      75,
      'try again in 3 s',
    ],
    ['failed', problem(500, 'server_error', 'internal error'), 1, 'request r1'],
    [
      'is older',
      problem(404, 'not_found', 'there is nothing at this path; /openapi.yaml lists every path'),
      76,
      'another version',
    ],
    ['is something else', { status: 200, body: '<html>' }, 76, 'is not Assay'],
    ['is something else that refuses', { status: 404, body: '{}' }, 76, 'is not Assay'],
  ])('%s', async (_, given, code, words) => {
    answer = given
    const url = `http://127.0.0.1:${(odd.address() as AddressInfo).port}`
    const ended = await assay('customers show k5m2q7xw3bfz6tha', undefined, { ASSAY_URL: url })
    expect(ended).toMatchObject({ code, stdout: '', stderr: expect.stringContaining(words) })
    expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1)
  })

  const oddUrl = () => `http://127.0.0.1:${(odd.address() as AddressInfo).port}`

  test('is not ready: the failed checks are shown, and the replicas are not requested while the database is away', async () => {
    const checks = { accepting: 'ok', state: 'failed', database: 'failed', migrations: 'unknown' }
    paths = { '/readyz': { status: 503, body: JSON.stringify({ status: 'unavailable', checks }) } }
    // The request would end the command with 76, so it is not sent while the database is known to be away.
    answer = { status: 200, body: '<html>' }
    const status = await assay('status', undefined, { ASSAY_URL: oddUrl() })
    expect(status).toMatchObject({ code: 75, stderr: '' })
    expect(status.stdout).toMatch(
      /unavailable \(accepting ok, state failed, database failed, migrations unknown\)/,
    )
    expect(status.stdout).toMatch(/^database: .*assay doctor/m)
    expect(status.stdout).toMatch(/replicas are unknown/)
    const forScripts = await assay('status --json', undefined, { ASSAY_URL: oddUrl() })
    expect(JSON.parse(forScripts.stdout)).toEqual({ status: 'unavailable', checks })
    answer = problem(503, 'temporarily_unavailable', 'temporarily unavailable; try again')
    const only = { ...checks, database: 'ok' }
    paths = { '/readyz': { status: 503, body: JSON.stringify({ status: 'unavailable', checks: only }) } }
    const refused = await assay('status', undefined, { ASSAY_URL: oddUrl() })
    expect(refused).toMatchObject({ code: 75, stdout: expect.stringMatching(/replicas are unknown/) })
    paths = {}
  })

  test('redirects, as from http to https: the operator token is not sent to the new address', async () => {
    answer = { status: 301, body: '', location: 'https://auth.example.com/admin/customers' }
    for (const words of ['status', 'customers list'])
      expect(await assay(words, undefined, { ASSAY_URL: oddUrl() })).toMatchObject({
        code: 76,
        stderr: expect.stringContaining('redirects to https://auth.example.com; set ASSAY_URL'),
      })
  })

  test.each([
    '127.0.0.1:3001',
    'localhost:3001',
    'ftp://auth.example.com',
    'http://admin:s3cret@auth.example.com',
  ])('has the unusable URL %s, which the error does not repeat', async url => {
    const ended = await assay('status', undefined, { ASSAY_URL: url })
    expect(ended).toMatchObject({ code: 78, stderr: expect.stringMatching(/ASSAY_URL must begin with http/) })
    expect(ended.stderr).not.toContain('s3cret')
  })

  test('is not running', async () => {
    const ended = await assay('status', undefined, { ASSAY_URL: 'http://127.0.0.1:1' })
    expect(ended).toMatchObject({ code: 69, stderr: expect.stringContaining('ASSAY_URL') })
  })

  test('accepts no missing, wrong or read-only token', async () => {
    const show = (more: Settings) => assay('customers create x@example.com', undefined, more)
    expect(await show({ DATA_DIR: root })).toMatchObject({
      code: 77,
      stderr: expect.stringContaining('ADMIN_TOKEN'),
    })
    expect(await show({ ADMIN_TOKEN: 'x'.repeat(40) })).toMatchObject({ code: 77 })
    expect(await show({ ADMIN_TOKEN: READER })).toMatchObject({
      code: 77,
      stderr: expect.stringContaining('operator token is read-only'),
    })
    const edited = join(root, 'edited.token')
    writeFileSync(edited, `\uFEFF${READER}\r\n\r\n`)
    expect(await show({ ADMIN_TOKEN_FILE: edited })).toMatchObject({
      code: 77,
      stderr: expect.stringContaining('operator token is read-only'),
    })
    const file = join(root, 'none')
    expect(await show({ ADMIN_TOKEN_FILE: file })).toMatchObject({
      code: 78,
      stderr: expect.stringContaining(file),
    })
  })
})

describe('completion', () => {
  test('in bash, word by word', async () => {
    const script = join(root, 'completion.bash')
    writeFileSync(script, (await assay('completion bash')).stdout)
    const complete = (words: string[]) => {
      const line = `source ${script}; COMP_WORDS=(assay ${words.map(word => `'${word}'`).join(' ')}); COMP_CWORD=${words.length}; _assay; echo "\${COMPREPLY[@]}"`
      return spawnSync('bash', ['-c', line], { encoding: 'utf8' }).stdout.trim().split(' ')
    }
    expect(complete(['cust'])).toEqual(['customers'])
    expect(complete(['customers', ''])).toContain('erase')
    expect(complete(['customers', 'erase', 'k5m2', '--y'])).toEqual(['--yes'])
    expect(complete(['audit', '--exp'])).toEqual(['--export'])
  })

  test.each(['zsh', 'fish'])('in %s there is a script', async shell => {
    const { code, stdout } = await assay(`completion ${shell}`)
    expect(code).toBe(0)
    for (const command of program.leaves()) for (const word of command.path()) expect(stdout).toContain(word)
    if (findProgram(shell)) expect(spawnSync(shell, ['-n', '-c', stdout]).status).toBe(0)
  })

  test('in another shell there is none', async () => {
    expect((await assay('completion tcsh')).code).toBe(64)
  })
})
