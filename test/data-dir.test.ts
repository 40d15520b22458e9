import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseAdminToken, parseMasterKeys } from '../server/config/load.ts'
import {
  adminTokenFile,
  closeToOthers,
  type DataDir,
  DataDirInUseError,
  MasterKeyMissingError,
  masterKeysFile,
  openDataDir,
} from '../server/embedded/data-dir.ts'

/** Opens the folders that it gets, keeps them open, and reports the results. */
const OPENER = `
  import { createInterface } from 'node:readline'
  import { openDataDir } from ${JSON.stringify(new URL('../server/embedded/data-dir.ts', import.meta.url).href)}
  console.log('ready')
  for await (const path of createInterface({ input: process.stdin })) {
    try {
      openDataDir(path)
      console.log('open')
    } catch (error) {
      console.log(error.name + ' ' + error.message)
    }
  }
`

interface Opener {
  pid: number
  open(path: string): Promise<string>
  kill(): Promise<void>
}

let root: string
let path: string
let children: ChildProcess[]

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'assay-'))
  path = join(root, 'data')
  children = []
})

afterEach(async () => {
  await Promise.all(children.map(end))
  rmSync(root, { recursive: true })
})

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

async function startOpener(): Promise<Opener> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', OPENER], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  children.push(child)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => String((await lines.next()).value)
  expect(await next()).toBe('ready')
  return {
    pid: child.pid!,
    open: folder => {
      child.stdin.write(`${folder}\n`)
      return next()
    },
    kill: () => end(child),
  }
}

const lockFile = (folder = path) => join(folder, 'assay.lock')
const readLock = () => JSON.parse(readFileSync(lockFile(), 'utf8'))

function writeLock(folder: string, holder: { pid: number; startedAt: string; id: string }): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(lockFile(folder), JSON.stringify(holder))
}

/** The lock of a process that was killed while it had the folder open. */
async function staleLock(): Promise<{ pid: number; startedAt: string; id: string }> {
  const opener = await startOpener()
  expect(await opener.open(path)).toBe('open')
  await opener.kill()
  return readLock()
}

/** The files of a first start once its database is created. */
function makeDatabase(dir: DataDir): void {
  mkdirSync(dir.database)
  writeFileSync(join(dir.database, 'PG_VERSION'), '18')
}

describe('opening', () => {
  test('a database that others may read is made private, and the folder around it is unchanged', () => {
    const first = openDataDir(path)
    makeDatabase(first)
    mkdirSync(join(first.database, 'base'))
    first.release()
    const modes = (...of: string[]) => of.map(name => (statSync(join(path, name)).mode & 0o777).toString(8))
    chmodSync(path, 0o755)
    chmodSync(first.database, 0o755)
    chmodSync(join(first.database, 'PG_VERSION'), 0o666)
    closeToOthers(first.database)
    expect(modes('', 'pgdata', 'pgdata/base', 'pgdata/PG_VERSION')).toEqual(['755', '700', '700', '600'])
  })

  test('the folder is created for its owner only, and counts as new until it contains a database', () => {
    const first = openDataDir(path)
    expect(statSync(path).mode & 0o777).toBe(0o700)
    expect(first).toMatchObject({ path, database: join(path, 'pgdata'), fresh: true })
    makeDatabase(first)
    first.release()
    const second = openDataDir(path)
    expect(second.fresh).toBe(false)
    second.release()
  })

  test('a folder named like a PGlite storage is still treated as a folder', () => {
    const dir = openDataDir(`${path}/memory://x`)
    expect(dir.database).toBe(join(path, 'memory:', 'x', 'pgdata'))
    dir.release()
  })

  test('release removes only our own lock, once', async () => {
    const first = openDataDir(path)
    first.release()
    expect(readdirSync(path)).toEqual([])
    const opener = await startOpener()
    expect(await opener.open(path)).toBe('open')
    first.release()
    expect(readLock().pid).toBe(opener.pid)
  })

  test('release of an earlier opening does not release this one', () => {
    const first = openDataDir(path)
    first.release()
    const second = openDataDir(path)
    first.release()
    expect(readdirSync(path)).toEqual(['assay.lock'])
    second.release()
  })
})

describe('H52: the embedded database is opened once', () => {
  test('a second start is refused with the pid of the first, and the fix', async () => {
    const opener = await startOpener()
    expect(await opener.open(path)).toBe('open')
    expect(() => openDataDir(path)).toThrow(DataDirInUseError)
    expect(() => openDataDir(path)).toThrow(
      `another process (pid ${opener.pid}) has ${path} open; stop it, or set DATA_DIR or DATABASE_URL`,
    )
    expect(readdirSync(path)).toEqual(['assay.lock'])
    expect(readLock().pid).toBe(opener.pid)
  })

  test('opening it twice in one process is refused too', () => {
    const dir = openDataDir(path)
    expect(() => openDataDir(path)).toThrow(DataDirInUseError)
    dir.release()
    openDataDir(path).release()
  })

  test('after kill -9 of the first the next start works', async () => {
    await staleLock()
    const dir = openDataDir(path)
    expect(readLock().pid).toBe(process.pid)
    expect(readdirSync(path)).toEqual(['assay.lock'])
    dir.release()
  })

  test.each([
    ['another process has its pid now', () => process.ppid, 'another time'],
    ['we have its pid now, as pid 1 of a container', () => process.pid, 'another time'],
    ['we have its pid, and its start time is unknown', () => process.pid, ''],
  ])('a lock is stale when %s', (_, pid, startedAt) => {
    writeLock(path, { pid: pid(), startedAt, id: randomUUID() })
    openDataDir(path).release()
    expect(readdirSync(path)).toEqual([])
  })

  test('a lock of a live process with an unknown start time is not stale', () => {
    writeLock(path, { pid: process.ppid, startedAt: '', id: randomUUID() })
    expect(() => openDataDir(path)).toThrow(DataDirInUseError)
  })

  test('a foreign lock is not removed', () => {
    mkdirSync(path)
    writeFileSync(lockFile(), 'mine')
    expect(() => openDataDir(path)).toThrow(/not a lock file of Assay; remove it/)
    expect(readFileSync(lockFile(), 'utf8')).toBe('mine')
  })

  test('of 20 processes that find one stale lock, one gets it, in every round', {
    timeout: 60_000,
  }, async () => {
    const stale = await staleLock()
    const openers = await Promise.all(Array.from({ length: 20 }, startOpener))
    for (let round = 0; round < 50; round++) {
      const folder = join(root, `round${round}`)
      writeLock(folder, stale)
      // A process died while it replaced the lock in every second round.
      const claim = { ...stale, id: randomUUID() }
      if (round % 2 === 1) writeFileSync(`${lockFile(folder)}.${stale.id}`, JSON.stringify(claim))
      const answers = await Promise.all(openers.map(opener => opener.open(folder)))
      expect(answers.filter(answer => answer === 'open')).toHaveLength(1)
      expect(answers.filter(answer => answer.startsWith('DataDirInUse'))).toHaveLength(19)
      const winner = openers[answers.indexOf('open')]?.pid
      expect(JSON.parse(readFileSync(lockFile(folder), 'utf8')).pid).toBe(winner)
      expect(readdirSync(folder)).toEqual(['assay.lock'])
    }
  })
})

describe('the secrets of a first start', () => {
  let dir: DataDir
  beforeEach(() => {
    dir = openDataDir(path)
  })
  afterEach(() => dir.release())

  test('are created, satisfy the rules of the settings, and are readable only by their owner', () => {
    const keys = masterKeysFile(dir)
    const token = adminTokenFile(dir)
    expect(parseMasterKeys(keys.text)).toMatchObject([{ id: 'm1' }])
    expect(parseAdminToken(token.text)).toHaveLength(43)
    expect([keys.warnings, token.warnings]).toEqual([[], []])
    expect(readdirSync(path).sort()).toEqual(['admin.token', 'assay.lock', 'master.keys'])
    for (const file of [keys.path, token.path]) expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  test('are the same at the next start, with a database or without one', () => {
    const first = [masterKeysFile(dir), adminTokenFile(dir)]
    expect([masterKeysFile(dir), adminTokenFile(dir)]).toEqual(first)
    makeDatabase(dir)
    dir.release()
    dir = openDataDir(path)
    expect([masterKeysFile(dir), adminTokenFile(dir)]).toEqual(first)
  })

  test('differ from one installation to the next', () => {
    const other = openDataDir(join(root, 'other'))
    expect(masterKeysFile(other).text).not.toBe(masterKeysFile(dir).text)
    expect(adminTokenFile(other).text).not.toBe(adminTokenFile(dir).text)
    other.release()
  })

  test('a lost token is created again: nothing is sealed with it', () => {
    makeDatabase(dir)
    dir.release()
    dir = openDataDir(path)
    expect(parseAdminToken(adminTokenFile(dir).text)).toHaveLength(43)
  })

  test('cause a warning if others may read them, which does not contain them', () => {
    const { text } = masterKeysFile(dir)
    chmodSync(join(path, 'master.keys'), 0o640)
    const { warnings } = masterKeysFile(dir)
    expect(warnings).toEqual([
      expect.stringContaining(`mode 640, not 600; run: chmod 600 ${path}/master.keys`),
    ])
    expect(warnings[0]).not.toContain(text)
  })
})

test('H54: a missing master key is never recreated for a database, and nothing is written', () => {
  const first = openDataDir(path)
  masterKeysFile(first)
  makeDatabase(first)
  first.release()
  rmSync(join(path, 'master.keys'))
  const dir = openDataDir(path)
  const before = readdirSync(path, { recursive: true })
  expect(() => masterKeysFile(dir)).toThrow(MasterKeyMissingError)
  expect(() => masterKeysFile(dir)).toThrow(/encrypted with the master key.+ Restore .+, or set MASTER_KEYS/)
  expect(readdirSync(path, { recursive: true })).toEqual(before)
  expect(existsSync(join(path, 'master.keys'))).toBe(false)
  dir.release()
})
