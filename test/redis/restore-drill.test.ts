import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { control, MIGRATES } from '../support/database.ts'
import { freePort } from '../support/port.ts'
import { findProgram } from '../support/program.ts'
import { startRedis } from '../support/redis.ts'
import { copyDatabase } from '../support/templates.ts'

/** The restore drill of docs/operating.md, to the letter: all of its blocks in one shell. */

const ROOT = join(import.meta.dirname, '../..')
const page = readFileSync(join(ROOT, 'docs/operating.md'), 'utf8')
const section = /^## Restore drill$(.*?)^## /ms.exec(page)![1]!
const blocks = [...section.matchAll(/^ *```sh\n(.*?)^ *```$/gms)].map(([, block]) => block!)

/** What the comments say that the commands print. */
const printed = [...blocks.join('').matchAll(/ {2,}# (\S+)$/gm)].map(([, output]) => output!)

const hasAll = ['psql', 'pg_dump', 'pg_restore', 'redis-cli', 'curl', 'openssl'].every(findProgram)

test('the drill has all steps of a restore with Redis, in this order', () => {
  expect(blocks).toHaveLength(6)
  const steps = [
    'start\n',
    'pg_dump',
    'stop\n',
    'assay_lost',
    'pg_restore',
    'FLUSHDB',
    'start\n',
    'assay revoke',
  ]
  let at = 0
  for (const step of steps) {
    at = blocks.join('').indexOf(step, at)
    expect([step, at > -1]).toEqual([step, true])
  }
})

test.skipIf(!hasAll)(
  'the drill prints what it says (skipped where one of its programs is missing)',
  async () => {
    const [database, redis, port] = [await copyDatabase(), await startRedis(), await freePort()]
    onTestFinished(database.drop)
    const admin = control(database.url)
    onTestFinished(() => admin.end())
    await admin.unsafe(`grant create on database ${new URL(database.url).pathname.slice(1)} to ${MIGRATES}`)
    const script = blocks
      .join('')
      .replace('postgres://USER:PASSWORD@HOST:5432/DRILL', database.migrateUrl)
      .replace('redis://HOST:6379', redis.url)
      .replace('PORT=3009', `PORT=${port}`)
    expect(script).not.toMatch(/HOST|PASSWORD/)
    const { PATH, HOME } = process.env
    const env = { PATH, HOME, npm_config_update_notifier: 'false' }
    // A step that fails ends the script, and the server that it has started with it.
    const guarded = `set -e\ntrap 'if [ -n "$SERVER" ]; then kill $SERVER; fi' ERR\n${script}`
    const { stdout } = await promisify(execFile)('bash', ['-c', guarded], {
      cwd: ROOT,
      env,
      timeout: 150_000,
    })
    expect(stdout.trim().split('\n')).toEqual(printed)
    expect(printed).toEqual(['200', '401', 'assay', 'OK', '0', '200', '200', 'done', '401', '401'])
  },
  180_000,
)
