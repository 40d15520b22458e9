import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import {
  logLines,
  NODE_COMPILE_CACHE,
  type Running,
  runAssay,
  startAssay,
  stopAll,
  until,
} from './support/process.ts'
import { findProgram } from './support/program.ts'

/** The embedded database of this file: created by the first start, and used by all others. */
const root = mkdtempSync(join(tmpdir(), 'assay-'))
const DATA_DIR = join(root, 'data')
const masterKeys = join(DATA_DIR, 'master.keys')
const adminToken = join(DATA_DIR, 'admin.token')

let first: Running
let running: Running
let signedUp: { access_token: string; customer: { id: string } }

beforeAll(async () => {
  mkdirSync(DATA_DIR, { mode: 0o755 })
  first = await startAssay({ DATA_DIR })
  signedUp = await signUp(first.url)
})
afterAll(async () => {
  await stopAll()
  rmSync(root, { recursive: true })
})

/** Starts a server at a terminal, and resolves with what it shows there once it listens. */
async function showStart(settings: Record<string, string>) {
  const main = join(import.meta.dirname, '../server/main.ts')
  const typed = spawn('script', ['-qec', `${process.execPath} ${main}`, '/dev/null'], {
    env: { PATH: process.env.PATH, NODE_COMPILE_CACHE, PORT: '0', ...settings },
  })
  onTestFinished(() => void typed.kill())
  let shown = ''
  typed.stdout.on('data', chunk => {
    shown += chunk
  })
  await until('it listens', () => shown.includes('"msg":"listening"'))
  // The banner is the last thing that a start writes.
  await setTimeout(500)
  const stop = async () => {
    typed.stdin.write('\u0003')
    await once(typed, 'close')
  }
  const banner = shown.split(/\r?\n/).filter(line => line !== '' && !line.startsWith('{'))
  return { banner, stop }
}

async function signUp(url: string) {
  const email = `${randomBytes(6).toString('hex')}@example.com`
  const response = await fetch(`${url}/api/auth/signup`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password: 'correct horse battery' }),
  })
  return (await response.json()) as { access_token: string; customer: { id: string } }
}

const verify = (url: string) =>
  fetch(`${url}/verify`, { headers: { Authorization: `Bearer ${signedUp.access_token}` } })

async function accepts(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port, timeout: 2_000 })
  const outcome = await Promise.race([
    once(socket, 'connect').then(
      () => true,
      () => false,
    ),
    once(socket, 'timeout').then(() => false),
  ])
  socket.destroy()
  return outcome
}

/** This machine's addresses except the default 127.0.0.1. 127.0.0.2 is loopback too, but not the default. */
const elsewhere = () => [
  '127.0.0.2',
  ...Object.values(networkInterfaces())
    .flatMap(addresses => addresses ?? [])
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ address }) => address),
]

describe('the first start of the embedded default', () => {
  test('creates a master key and an operator token that only their owner can read', () => {
    for (const file of [masterKeys, adminToken]) expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(readFileSync(masterKeys, 'utf8')).toMatch(/^m1:[A-Za-z0-9+/]{43}=\n$/)
    expect(readFileSync(adminToken, 'utf8')).toMatch(/^[\w-]{43}\n$/)
  })

  test('creates a database whose files only their owner can read, even in a folder that is open to all', () => {
    const files = readdirSync(DATA_DIR, { recursive: true, withFileTypes: true })
    expect(files.length).toBeGreaterThan(900)
    const open = files.filter(
      file => statSync(join(file.parentPath, file.name)).mode & (file.isDirectory() ? 0o077 : 0o177),
    )
    expect(open.map(({ name }) => name)).toEqual([])
  })

  test.skipIf(!findProgram('script'))(
    'at a terminal shows the URL, the operator token and the next command',
    async () => {
      const folder = join(root, 'shown')
      const { banner, stop } = await showStart({ DATA_DIR: folder, npm_lifecycle_event: 'start' })
      const port = /localhost:(\d+)$/.exec(banner[0]!)![1]!
      const command = `ASSAY_URL=http://localhost:${port} DATA_DIR='${folder}' npm run assay -- customers create me@example.com`
      expect(banner.map(line => line.trim())).toEqual([
        `Assay listens on http://localhost:${port}`,
        `Operator token:  ${folder}/admin.token`,
        'Next, in another terminal, create a customer and its API key:',
        command,
      ])
      const { stdout } = await promisify(execFile)('bash', ['-c', command], {
        cwd: join(import.meta.dirname, '..'),
      })
      expect(stdout).toMatch(/^api key +assay_ak_/m)
      await stop()
      const given = await showStart({
        DATA_DIR: folder,
        ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
      })
      await given.stop()
      expect(given.banner.join()).toMatch(
        /Operator token: {2}in ADMIN_TOKEN,.* assay customers create me@example\.com$/,
      )
    },
  )

  test('writes nothing but its log where nobody sits at a terminal', () => {
    expect(first.stderr()).toBe('')
  })

  test('says in the log that this is a new installation, and where', () => {
    expect(logLines(first).filter(({ level }) => level >= 40)).toEqual([
      expect.objectContaining({
        place: `the folder ${DATA_DIR}`,
        msg: expect.stringContaining('a new installation was created'),
      }),
    ])
  })

  test('reveals none of the secrets that it created', () => {
    const secrets = [
      readFileSync(masterKeys, 'utf8').slice(3).trim(),
      readFileSync(adminToken, 'utf8').trim(),
    ]
    for (const secret of secrets) expect(first.stdout() + first.stderr()).not.toContain(secret)
  })
})

describe('later starts', () => {
  test('keep the keys, the operator token, the customers and their tokens', async () => {
    const before = [masterKeys, adminToken].map(file => readFileSync(file, 'utf8'))
    await first.stop('SIGINT')
    running = await startAssay({ DATA_DIR })
    expect(running.stdout() + running.stderr()).not.toMatch(/new installation/i)
    expect([masterKeys, adminToken].map(file => readFileSync(file, 'utf8'))).toEqual(before)
    const answer = await verify(running.url)
    expect(answer.status).toBe(200)
    expect(answer.headers.get('x-auth-customer')).toBe(signedUp.customer.id)
    const operator = { Authorization: `Bearer ${before[1]!.trim()}` }
    expect((await fetch(`${running.url}/metrics`, { headers: operator })).status).toBe(200)
  })

  test('log that anybody can create an account', async () => {
    expect(running.stdout()).toContain('because SIGNUP is open')
  })

  test('unless HOST is set, only this machine can reach it', async () => {
    expect(logLines(running).find(({ msg }) => msg === 'listening').host).toBe('127.0.0.1')
    expect(await accepts('127.0.0.1', running.port)).toBe(true)
    for (const address of elsewhere()) expect(await accepts(address, running.port), address).toBe(false)
  })

  test('H52 a second process on the same folder is refused with the pid of the first, which keeps serving', async () => {
    const { code, stderr } = await runAssay({ DATA_DIR })
    expect(code).toBe(78)
    expect(stderr).toMatch(new RegExp(`pid ${running.pid}\\b`))
    expect(stderr).toContain(DATA_DIR)
    expect((await verify(running.url)).status).toBe(200)
  })

  test('H52 after a kill -9 the next start works, and no acknowledged act is lost', async () => {
    signedUp = await signUp(running.url)
    expect(await running.stop('SIGKILL')).toBe('SIGKILL')
    expect(existsSync(join(DATA_DIR, 'assay.lock'))).toBe(true)
    running = await startAssay({ DATA_DIR, HOST: '0.0.0.0' })
    expect((await verify(running.url)).status).toBe(200)
  })

  test('HOST=0.0.0.0 makes it reachable for others', async () => {
    for (const address of elsewhere()) expect(await accepts(address, running.port), address).toBe(true)
    expect(await running.stop('SIGINT')).toBe(0)
    expect(existsSync(join(DATA_DIR, 'assay.lock'))).toBe(false)
  })
})

test('a port in use ends the start with a message that says so, and the folder is released', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const { code, stderr } = await runAssay({ DATA_DIR, PORT: String(port) })
  taken.close()
  expect(code).toBe(78)
  expect(stderr).toContain(`127.0.0.1 port ${port}: another process is listening there`)
  expect(stderr).toContain('PORT')
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(existsSync(join(DATA_DIR, 'assay.lock'))).toBe(false)
})

test('a service of SERVICES with the name of a created one is named in the log', async () => {
  const before = await startAssay({ DATA_DIR })
  const created = await fetch(`${before.url}/admin/services`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${readFileSync(adminToken, 'utf8').trim()}`,
      'Content-Type': 'application/json',
    },
    body: JSON.stringify({ name: 'orders', may: ['introspect'] }),
  })
  expect(created.status).toBe(201)
  await before.stop('SIGINT')
  const secret = () => randomBytes(32).toString('base64url')
  const SERVICES = `gateway:introspect:${secret()},orders:introspect:${secret()}`
  const after = await startAssay({ DATA_DIR, SERVICES })
  await after.stop('SIGINT')
  expect(logLines(after).filter(({ level }) => level >= 40)).toMatchObject([
    { services: ['orders'], msg: expect.stringContaining('rename them in SERVICES') },
  ])
})

describe('H54 the embedded database and a master key that is not its own', () => {
  test('another key under the same id is refused, and the right one then works', async () => {
    const other = `m1:${randomBytes(32).toString('base64')}`
    const { code, stderr } = await runAssay({ DATA_DIR, MASTER_KEYS: other })
    expect(code).toBe(78)
    expect(stderr).toMatch(/master key m1: expected check value \S+, found \S+/)
    expect(stderr).not.toContain(other.slice(3))
    const right = await startAssay({ DATA_DIR })
    expect((await verify(right.url)).status).toBe(200)
    await right.stop('SIGINT')
  })

  test('misspelt settings are named in one line of the log, also by a migration', async () => {
    const settings = { DATA_DIR, ACESS_TOKEN_TTL: '1m', SIGN_UP: 'closed', NODE_ENV: 'production' }
    const message =
      'ACESS_TOKEN_TTL: is not a setting and is ignored; did you mean ACCESS_TOKEN_TTL? ' +
      'SIGN_UP: is not a setting and is ignored; did you mean SIGNUP?'
    const warnings = (output: { stdout(): string }) =>
      logLines(output).flatMap(({ level, msg }) => (level >= 40 ? [msg] : []))
    const again = await startAssay(settings)
    await again.stop()
    expect(warnings(again)).toEqual([message])
    const { code, stdout } = await runAssay(settings, ['migrate'])
    expect([code, warnings({ stdout: () => stdout })]).toEqual([0, [message]])
  })

  test('a missing key file is never recreated', async () => {
    const aside = join(root, 'aside')
    renameSync(masterKeys, aside)
    const { code, stderr } = await runAssay({ DATA_DIR })
    const made = existsSync(masterKeys)
    renameSync(aside, masterKeys)
    expect(code).toBe(78)
    expect(stderr).toContain(masterKeys)
    expect(made).toBe(false)
  })
})
