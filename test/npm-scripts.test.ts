import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest'
import { killAll } from './support/npm.ts'
import { expectDrain, startByNpm } from './support/npm-start.ts'
import { copyInstallation } from './support/templates.ts'

/** How the scripts of package.json end when npm gets a signal, on the embedded database. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
let DATA_DIR: string

beforeEach(() => {
  DATA_DIR = copyInstallation(mkdtempSync(join(root, 'data-')))
})
afterEach(() => {
  killAll()
  rmSync(DATA_DIR, { recursive: true, force: true, maxRetries: 5 })
})
afterAll(() => rmSync(root, { recursive: true, force: true, maxRetries: 5 }))

const isLocked = () => existsSync(join(DATA_DIR, 'assay.lock'))

test.each([
  { words: 'start', signal: 'SIGTERM', shell: 'sh' },
  { words: 'start', signal: 'SIGINT', shell: 'bash' },
  { words: 'run start', signal: 'SIGINT', shell: 'sh' },
  { words: 'start --silent', signal: 'SIGTERM', shell: 'bash' },
  { words: 'run dev', signal: 'SIGTERM', shell: 'sh' },
  { words: 'run dev', signal: 'SIGINT', shell: 'bash' },
  { words: 'run assay -- serve', signal: 'SIGTERM', shell: 'sh' },
] as const)(
  'a signal to npm drains the server: npm $words, $signal, $shell',
  async ({ words, signal, shell }) => {
    const server = await startByNpm(words.split(' '), { DATA_DIR, npm_config_script_shell: shell })
    expect(isLocked()).toBe(true)
    await expectDrain(server, signal, () => server.kill(signal))
    expect(isLocked()).toBe(false)
  },
)

test('Ctrl-C, which the terminal sends to npm and to the server, drains it once', async () => {
  const server = await startByNpm(['start'], { DATA_DIR })
  await expectDrain(server, 'SIGINT', server.interrupt)
  expect(isLocked()).toBe(false)
})

test.each(['start', 'run assay -- serve'])('SIGUSR1 does not open the inspector: npm %s', async words => {
  const server = await startByNpm(words.split(' '), { DATA_DIR })
  const { pid } = JSON.parse(readFileSync(join(DATA_DIR, 'assay.lock'), 'utf8'))
  process.kill(pid, 'SIGUSR1')
  await expectDrain(server, 'SIGINT', () => server.kill('SIGINT'))
  expect(server.output()).not.toContain('Debugger')
})

test('a second signal to npm start ends the server at once, with its exit code', async () => {
  const server = await startByNpm(['start'], { DATA_DIR })
  const began = performance.now()
  server.kill('SIGTERM')
  await expect.poll(server.output).toContain('"msg":"draining"')
  server.kill('SIGINT')
  expect(await server.exited).toBe(1)
  // A drain would take 3 s at least.
  expect(performance.now() - began).toBeLessThan(3_000)
  expect(isLocked()).toBe(false)
})

test('each script replaces its shell, so that signals to npm reach the program', () => {
  const { scripts } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8'))
  for (const [name, command] of Object.entries<string>(scripts))
    expect(command.split(' && ').at(-1), name).toMatch(/^exec /)
})
