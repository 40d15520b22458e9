import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import {
  NODE_COMPILE_CACHE,
  runCli,
  type Settings,
  startAssay,
  startCli,
  stopAll,
  until,
} from './support/process.ts'
import { copyInstallation } from './support/templates.ts'

/** `assay audit --follow`, in a process of its own. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const DATA_DIR = join(root, 'data')
let settings: Settings

beforeAll(async () => {
  copyInstallation(DATA_DIR)
  const { url } = await startAssay({ DATA_DIR })
  settings = { ASSAY_URL: url, DATA_DIR }
})
afterAll(async () => {
  await stopAll()
  rmSync(root, { recursive: true })
})

const assay = (words: string, more: Settings = {}) => runCli({ ...settings, ...more }, words.split(' '))
const create = async () => {
  const { stdout } = await assay(`customers create ${crypto.randomUUID()}@example.com --json`)
  return JSON.parse(stdout).customer.id as string
}

function startFollower(words: string, more: Settings = {}) {
  const follower = startCli({ ...settings, ...more }, `audit --follow ${words}`.split(' '))
  onTestFinished(async () => void (await follower.stop('SIGKILL')))
  return follower
}

const lines = (printed: string) =>
  printed
    .split('\n')
    .slice(0, -1)
    .map(line => JSON.parse(line))

/** The cursor is stored after its line is written. */
const untilStored = (file: string, cursor: string) =>
  until('the cursor is stored', () => existsSync(file) && readFileSync(file, 'utf8') === `${cursor}\n`)

test('events are printed as they come, from now on, and Ctrl-C ends it quietly with 130', async () => {
  const old = await create()
  await until('it has its place', async () => (await assay(`audit --export --customer ${old}`)).stdout !== '')
  const cursorFile = join(root, 'followed')
  const json = startFollower(`--json --cursor-file ${cursorFile}`)
  const readable = startFollower('--after 0')
  await until('it follows', () => existsSync(cursorFile) && readable.stdout().includes(old))
  const id = await create()
  await until('the event is printed', () => [json, readable].every(each => each.stdout().includes(id)))
  const [event, ...rest] = lines(json.stdout())
  expect(rest).toEqual([])
  expect(event).toMatchObject({ type: 'customer.created', customer_id: id, actor: 'operator:admin' })
  await untilStored(cursorFile, event.cursor)
  expect(readable.stdout()).toMatch(
    new RegExp(`^${event.at}  customer.created +operator:admin  ${id}  ${id}  127.0.0.1$`, 'm'),
  )
  for (const follower of [json, readable]) {
    expect(await follower.stop('SIGINT')).toBe(130)
    expect(follower.stderr()).toBe('')
  }
})

test('with a cursor file it continues where it was, whatever --after says', async () => {
  const cursorFile = join(root, 'continued')
  const begun = startFollower(`--json --after 0 --cursor-file ${cursorFile}`)
  const first = await create()
  await until('the event is printed', () => begun.stdout().includes(first))
  await untilStored(cursorFile, lines(begun.stdout()).at(-1).cursor)
  await begun.stop('SIGTERM')
  const [second, third] = [await create(), await create()]
  const continued = startFollower(`--json --after 0 --cursor-file ${cursorFile}`)
  await until('the events are printed', () => lines(continued.stdout()).length === 2)
  expect(lines(continued.stdout()).map(event => event.customer_id)).toEqual([second, third])
  const filtered = startFollower(`--json --after 0 --customer ${third}`)
  await until('the event is printed', () => lines(filtered.stdout()).length > 0)
  expect(lines(filtered.stdout()).map(event => event.customer_id)).toEqual([third])
})

/** A page of events that the order never had, as a server would answer it. */
const MARK = '0b8b2f5e-6a3c-4f0e-9d1b-5a7c3e8f2d64'
const page = (from: number, to: number) => {
  const events = Array.from({ length: to - from }, (_, n) => ({
    id: String(from + n + 1),
    at: '2026-01-05T09:45:12.000Z',
    type: 'token.issued',
    actor: `api_key:${'k'.repeat(100)}`,
    cursor: `${from + n + 1}.${MARK}`,
  }))
  return JSON.stringify({ events, next: `${to}.${MARK}`, more: false })
}

type Reply = (response: ServerResponse) => unknown
const reply =
  (status: number, body: string): Reply =>
  response =>
    response.writeHead(status).end(body)
const hang: Reply = () => {}
const reset: Reply = response => response.socket!.resetAndDestroy()
const problem = (status: number, error: string, detail: string) =>
  reply(status, JSON.stringify({ status, error, detail, request_id: 'r1' }))

/** A server that answers one request after another in these ways, and the queries that it got. */
async function oddServer(replies: Reply[]) {
  const asked: string[] = []
  const server = createServer(({ url }, response) => {
    asked.push(new URL(url!, 'http://odd').search)
    const answer = replies.shift() ?? hang
    answer(response)
  }).listen(0, '127.0.0.1')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return { asked, more: { ASSAY_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}` } }
}

test('a server that fails for a while is asked again for the same, and that is told once', async () => {
  const { asked, more } = await oddServer([
    reply(200, page(0, 2)),
    problem(503, 'temporarily_unavailable', 'temporarily unavailable; try again'),
    reset,
    reply(502, '<html>Bad Gateway</html>'),
    reply(200, page(2, 3)),
  ])
  const follower = startFollower('--json --after 0', more)
  await until('all is printed', () => lines(follower.stdout()).length === 3)
  expect(lines(follower.stdout()).map(({ id }) => id)).toEqual(['1', '2', '3'])
  expect(follower.stderr().split('\n')).toEqual([
    'assay: temporarily unavailable; try again (request r1); retrying',
    'assay: the server answers again',
    '',
  ])
  await until('it waits again', () => asked.length === 6)
  const after = asked.map(query => new URLSearchParams(query).get('after')!.split('.')[0])
  expect(after).toEqual(['0', '2', '2', '2', '2', '3'])
})

test.each([
  ['a wrong token', problem(401, 'invalid_token', 'this is no operator token'), 77, 'ADMIN_TOKEN'],
  [
    'a cursor of a lost order',
    problem(409, 'conflict', 'after: continue from an older cursor'),
    1,
    'older cursor',
  ],
  ['something that is not Assay', reply(200, '<html>'), 76, 'is not Assay'],
])('it ends at %s, because trying again would not help', async (_, answer, code, words) => {
  const { more } = await oddServer([answer])
  const follower = startFollower('--after 0', more)
  expect(await follower.exited).toBe(code)
  expect(follower.stderr()).toContain(words)
})

test('the cursor file is never ahead of what was written, though the reader has stopped reading', async () => {
  const { more } = await oddServer([reply(200, page(0, 1_000)), reply(200, page(1_000, 2_000))])
  const cursorFile = join(root, 'blocked')
  const cli = join(import.meta.dirname, '../cli/main.ts')
  const child = spawn(
    process.execPath,
    [cli, ...`audit --follow --json --after 0 --cursor-file ${cursorFile}`.split(' ')],
    {
      env: { PATH: process.env.PATH, NODE_COMPILE_CACHE, ...settings, ...more },
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  )
  onTestFinished(() => void child.kill('SIGKILL'))
  const cursor = () => Number(readFileSync(cursorFile, 'utf8').split('.')[0])
  await until('it has begun', () => existsSync(cursorFile) && cursor() > 0)
  for (let before = 0; before !== cursor(); await pause(500)) before = cursor()
  child.kill('SIGKILL')
  const written = lines(await text(child.stdout))
  expect(written.length).toBeLessThan(2_000)
  expect([written.length, written.length - 1]).toContain(cursor())
})

test('the webhook sender of docs/observing.md sends every event, again after a failure, and continues where it was', async () => {
  const observing = readFileSync(join(import.meta.dirname, '../docs/observing.md'), 'utf8')
  const [, code] = /```js\n(.*?)```/s.exec(observing)!
  writeFileSync(join(root, 'sender.mjs'), code!.replace('http://localhost:3001', settings.ASSAY_URL!))
  const received: string[] = []
  const repeated: string[] = []
  const seen = new Set<string>()
  let refusals = 2
  const hook = createServer(async (request, response) => {
    const body = await text(request)
    if (refusals-- > 0) return response.writeHead(500).end()
    for (const { cursor, customer_id } of JSON.parse(body)) {
      const ids = seen.has(cursor) ? repeated : received
      ids.push(customer_id)
      seen.add(cursor)
    }
    response.end()
  }).listen(0, '127.0.0.1')
  await once(hook, 'listening')
  onTestFinished(() => void hook.close().closeAllConnections())
  const env = {
    TOKEN: readFileSync(join(DATA_DIR, 'admin.token'), 'utf8').trim(),
    HOOK: `http://127.0.0.1:${(hook.address() as AddressInfo).port}`,
  }
  const send = () => {
    const sender = spawn(process.execPath, [join(root, 'sender.mjs')], { cwd: root, env, stdio: 'ignore' })
    onTestFinished(() => void sender.kill('SIGKILL'))
    return sender
  }
  const first = send()
  const one = await create()
  await until('the event is received', () => received.includes(one))
  await until('a cursor is stored', () => existsSync(join(root, 'cursor')))
  first.kill('SIGKILL')
  await once(first, 'close')
  const [two, three] = [await create(), await create()]
  send()
  await until('the events are received', () => received.includes(three))
  expect(received.slice(received.indexOf(one))).toEqual([one, two, three])
  expect(repeated).not.toContain(received[0])
})

test('a cursor file that cannot be used, and options that do not go together, are told', async () => {
  const empty = join(root, 'empty')
  writeFileSync(empty, '')
  expect(await assay(`audit --follow --cursor-file ${empty}`)).toMatchObject({
    code: 78,
    stderr: expect.stringContaining(`there is no cursor in ${empty}`),
  })
  const nowhere = join(root, 'nowhere', 'cursor')
  expect(await assay(`audit --follow --cursor-file ${nowhere}`)).toMatchObject({
    code: 78,
    stderr: expect.stringMatching(/can't be used \(ENOENT\)/),
  })
  expect(statSync(empty).size).toBe(0)
  for (const words of [
    '--follow --export',
    '--follow --all',
    '--follow --limit 5',
    '--follow --to 2026-01-31T12:00:00Z',
    '--cursor-file x',
    '--after 0',
  ])
    expect(await assay(`audit ${words}`), words).toMatchObject({ code: 64, stdout: '' })
})
