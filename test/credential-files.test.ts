import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { expect, onTestFinished, test } from 'vitest'
import { Operators } from '../server/clients/operators.ts'
import { CredentialFiles } from '../server/config/credential-files.ts'
import { type Credentials, loadConfig } from '../server/config/load.ts'
import { createLog } from '../server/lib/logger.ts'

/** Files of operators' tokens and services' secrets that change while the server runs. */

const KEY = Buffer.from('a master key of a test, 32 bytes').toString('base64url')
const token = (name: string) => `${name}-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5Pa0`
const secret = (name: string) => `${name}7fQ2mZk1Vx9sTb4Yc6Lr8Np3Hd5Je0Ua`

/** Loads each setting from its own file, as at a start, and returns what rereads them. */
function load(texts: Record<string, string>) {
  const folder = mkdtempSync(join(tmpdir(), 'assay-credentials-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = (name: string) => join(folder, name)
  const write = (name: string, text: string) => writeFileSync(path(name), text)
  for (const [name, text] of Object.entries(texts)) write(name, text)
  const env = Object.fromEntries(Object.keys(texts).map(name => [`${name}_FILE`, path(name)]))
  const config = loadConfig({ MASTER_KEYS: `m1:${KEY}`, ...env }, file => texts[file.split('/').at(-1)!]!)
  const lines: string[] = []
  const sink = new Writable({
    write(chunk, _, done) {
      lines.push(String(chunk))
      done()
    },
  })
  const log = createLog('info', sink)
  let credentials = config as Credentials
  const operators = new Operators(credentials)
  const apply = (changed: Credentials) => {
    credentials = changed
    operators.replace(changed)
  }
  const files = new CredentialFiles({ config: config as never, apply, log })
  const said = () => lines.splice(0).map(line => JSON.parse(line))
  return { folder, path, write, files, said, operators, credentials: () => credentials }
}

const name = (operators: Operators, text: string) => operators.find(text)?.name

test('a new operator token works and the old one is refused once two reads agree', async () => {
  const { files, write, operators, said } = load({ ADMIN_TOKEN: token('old') })
  await files.read()
  write('ADMIN_TOKEN', `${token('new')}\n`)
  await files.read()
  expect(name(operators, token('old'))).toBe('admin')
  await files.read()
  expect(name(operators, token('new'))).toBe('admin')
  expect(name(operators, token('old'))).toBeUndefined()
  const lines = said()
  expect(lines).toMatchObject([{ level: 30, operators: { added: [], removed: [], changed: ['admin'] } }])
  expect(JSON.stringify(lines)).not.toMatch(/Qm8sVx2/)
})

test('operators and services come and go, each by its own file', async () => {
  const { files, write, operators, credentials, said } = load({
    ADMIN_TOKEN: token('first'),
    OPERATORS: `alice:${token('alice')},bob:read:${token('bob')}`,
    SERVICES: `gateway:introspect:${secret('G')},api:introspect:${secret('A')}`,
  })
  write('OPERATORS', `bob:${token('bob')},carol:${token('carol')}`)
  write('SERVICES', `gateway:introspect:${secret('H')}`)
  await files.start()
  files.stop()
  expect(['first', 'alice', 'bob', 'carol'].map(each => name(operators, token(each)))).toEqual([
    'admin',
    undefined,
    'bob',
    'carol',
  ])
  expect(credentials().services.map(({ name }) => name)).toEqual(['gateway'])
  expect(said()).toMatchObject([
    {
      operators: { added: ['carol'], removed: ['alice'], changed: ['bob'] },
      services: { added: [], removed: ['api'], changed: ['gateway'] },
    },
  ])
})

function makePipe(path: string) {
  rmSync(path)
  execFileSync('mkfifo', [path])
}

function makeFolder(path: string) {
  rmSync(path)
  mkdirSync(path)
}

test.each([
  ['missing', path => rmSync(path)],
  ['empty', path => writeFileSync(path, ' \n')],
  ['malformed', path => writeFileSync(path, 'alice:short-secret-of-alice')],
  ['not the list that it was before it was cut', path => writeFileSync(path, `alice:${token('x')},bob:`)],
  ['the master key', path => writeFileSync(path, `alice:${KEY}`)],
  ['one token for two operators', path => writeFileSync(path, `alice:${token('x')},bob:${token('x')}`)],
  ['a pipe', path => makePipe(path)],
  ['too large', path => writeFileSync(path, `alice:${'a1'.repeat(600_000)}`)],
  ['a folder', path => makeFolder(path)],
] as [string, (path: string) => void][])(
  'a file that is %s changes nothing, is told once, and others go on',
  async (_, spoil) => {
    const { files, write, path, operators, said } = load({
      ADMIN_TOKEN: token('first'),
      OPERATORS: `alice:${token('alice')}`,
    })
    spoil(path('OPERATORS'))
    for (let reading = 0; reading < 4; reading++) await files.read()
    expect(name(operators, token('alice'))).toBe('alice')
    const lines = said()
    expect(lines).toMatchObject([{ level: 40, problems: [expect.stringMatching(/^OPERATORS_FILE: /)] }])
    expect(JSON.stringify(lines)).not.toMatch(/Qm8sVx2|short-secret|master/)

    write('ADMIN_TOKEN', token('second'))
    for (let reading = 0; reading < 2; reading++) await files.read()
    expect(name(operators, token('second'))).toBe('admin')
    expect(said()).toMatchObject([{ level: 30, operators: { changed: ['admin'] } }])

    rmSync(path('OPERATORS'), { recursive: true, force: true })
    write('OPERATORS', `alice:${token('later')}`)
    for (let reading = 0; reading < 2; reading++) await files.read()
    expect(name(operators, token('later'))).toBe('alice')
    expect(said().map(({ level }) => level)).toEqual([30, 30])
  },
)

test('a swapped link, as in Kubernetes, is followed', async () => {
  const { files, folder, path, operators } = load({ ADMIN_TOKEN: token('old') })
  for (const [version, text] of Object.entries({ v1: token('old'), v2: token('new') })) {
    mkdirSync(join(folder, version))
    writeFileSync(join(folder, version, 'ADMIN_TOKEN'), text)
  }
  symlinkSync('v1', path('data'))
  rmSync(path('ADMIN_TOKEN'))
  symlinkSync('data/ADMIN_TOKEN', path('ADMIN_TOKEN'))
  await files.read()
  symlinkSync('v2', path('next'))
  renameSync(path('next'), path('data'))
  for (let reading = 0; reading < 2; reading++) await files.read()
  expect(name(operators, token('new'))).toBe('admin')
})

test('a partly written file is not used, even if it is well-formed', async () => {
  const { files, write, operators } = load({
    ADMIN_TOKEN: token('first'),
    OPERATORS: `alice:${token('alice')},bob:${token('bob')}`,
  })
  await files.read()
  write('OPERATORS', `alice:${token('alice')}`)
  await files.read()
  expect(name(operators, token('bob'))).toBe('bob')
  write('OPERATORS', `alice:${token('alice')},bob:${token('bob')},carol:${token('carol')}`)
  await files.read()
  expect(name(operators, token('bob'))).toBe('bob')
  await files.read()
  expect(name(operators, token('carol'))).toBe('carol')
})
