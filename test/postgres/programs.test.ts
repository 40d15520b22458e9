import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import postgres from 'postgres'
import { expect, inject, onTestFinished, test } from 'vitest'
import { until } from '../support/process.ts'

/** The bench and the fault drills as programs. */

const ROOT = join(import.meta.dirname, '../..')

function start(program: string, args: string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [join(ROOT, program), ...args], { env: { ...process.env, ...env } })
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', text => {
    errors += text
  })
  child.stdout.resume()
  return { child, ended: once(child, 'close'), errors: () => errors }
}

test.each(['bench', 'faults'])('an unknown option of %s is an error of one line', async name => {
  const { ended, errors } = start(`${name}/run.ts`, ['--nonsense'])
  expect(await ended).toEqual([64, null])
  expect(errors()).toBe(`${name}: Unknown option '--nonsense'; --help lists the options\n`)
})

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)(
  'a bench that is ended by %s drops its databases, even if the signal comes twice',
  async (signal, code) => {
    const { child, ended } = start('bench/run.ts', ['--growth'], { DATABASE_URL: inject('databaseUrl') })
    onTestFinished(() => void child.kill('SIGKILL'))
    const sql = postgres(inject('databaseUrl'))
    onTestFinished(() => sql.end())
    const made = () => sql`select from pg_database where datname like ${`assay_bench_${child.pid}_%`}`
    await until('it has made a database', async () => (await made()).length > 0)
    child.kill(signal)
    child.kill(signal)
    expect(await ended).toEqual([code, null])
    expect(await made()).toEqual([])
  },
)
