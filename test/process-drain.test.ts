import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { logLines, type Running, startAssay, stopAll, until } from './support/process.ts'
import { openRaw, type Raw } from './support/raw.ts'
import { copyInstallation } from './support/templates.ts'

/** How a process shuts down. The waits are in real time, so these tests run concurrently. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const account = { email: 'one@example.com', password: 'correct horse battery' }

/** One server per test, on its own database with the account; all are started before any time is measured. */
const NAMES = ['drained', 'hurried', 'interrupted', 'echoed', 'finishing', 'stuck'] as const
const running = {} as Record<(typeof NAMES)[number], Running>

beforeAll(async () => {
  for (const name of NAMES) {
    running[name] = await startAssay({ DATA_DIR: copyInstallation(join(root, name)) })
    await signUp(running[name])
  }
})
afterAll(async () => {
  await stopAll()
  rmSync(root, { recursive: true })
})

async function signUp({ url }: Running) {
  const headers = { 'Content-Type': 'application/json' }
  await fetch(`${url}/api/auth/signup`, { method: 'POST', headers, body: JSON.stringify(account) })
}

const ask = (raw: Raw, path: string) => raw.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`)

/** A login of which half of the body has been sent. */
async function beginLogin(assay: Running) {
  const raw = await openRaw(assay.port)
  const body = JSON.stringify(account)
  const half = Math.floor(body.length / 2)
  raw.write(`POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n`)
  raw.write(`Content-Length: ${body.length}\r\n\r\n${body.slice(0, half)}`)
  // The server has the request once it has answered a later one on another connection.
  await fetch(`${assay.url}/healthz`)
  return Object.assign(raw, { finish: () => raw.write(body.slice(half)) })
}

const accepts = (assay: Running) =>
  openRaw(assay.port).then(
    raw => {
      raw.destroy()
      return true
    },
    () => false,
  )

const isDraining = (assay: Running) => logLines(assay).some(({ msg }) => msg === 'draining')

describe.concurrent('SIGTERM', () => {
  test('it is not ready at once; after 3 s it accepts nothing new; running requests finish', async () => {
    const assay = running.drained
    const kept = await openRaw(assay.port)
    ask(kept, '/healthz')
    await until('an answer', () => kept.statuses().length === 1)
    const login = await beginLogin(assay)
    const began = performance.now()
    const exited = assay.stop('SIGTERM')
    await until('it drains', () => isDraining(assay), 1_000)

    ask(kept, '/healthz')
    await kept.closed
    expect(kept.statuses()).toEqual([200, 200])
    const answers = { '/healthz': 200, '/readyz': 503, '/verify': 401, '/api/keys': 401, '/nothing': 404 }
    for (const [path, status] of Object.entries(answers)) {
      const raw = await openRaw(assay.port)
      ask(raw, path)
      await raw.closed
      expect(raw.statuses(), path).toEqual([status])
      expect(raw.text(), path).toMatch(/^Connection: close\r$/im)
    }
    expect(performance.now() - began).toBeLessThan(2_500)

    await until('it takes no more connections', async () => !(await accepts(assay)))
    expect(performance.now() - began).toBeGreaterThan(2_500)
    expect(performance.now() - began).toBeLessThan(5_000)
    login.finish()
    await login.closed
    expect(login.statuses()).toEqual([200])
    expect(await exited).toBe(0)
    expect(performance.now() - began).toBeLessThan(10_000)
    expect(existsSync(join(root, 'drained', 'assay.lock'))).toBe(false)
  })

  test('a second signal ends it at once', async () => {
    const assay = running.hurried
    await beginLogin(assay)
    const began = performance.now()
    void assay.stop('SIGTERM')
    await until('it drains', () => isDraining(assay), 1_000)
    expect(await assay.stop('SIGINT')).toBe(1)
    expect(performance.now() - began).toBeLessThan(2_500)
  })
})

describe.concurrent('SIGINT', () => {
  test('two signals at the same time, from the terminal and from npm, count as one', async () => {
    const assay = running.echoed
    void assay.stop('SIGINT')
    expect(await assay.stop('SIGINT')).toBe(0)
    expect(logLines(assay).map(({ msg }) => msg)).toContain('ended')
  })

  test('ends it without the pause', async () => {
    const assay = running.interrupted
    const kept = await openRaw(assay.port)
    ask(kept, '/healthz')
    await until('an answer', () => kept.statuses().length === 1)
    const began = performance.now()
    expect(await assay.stop('SIGINT')).toBe(0)
    expect(performance.now() - began).toBeLessThan(2_500)
  })

  test('requests in that time get Connection: close, and the server does not wait for their clients', async () => {
    const assay = running.finishing
    const login = await beginLogin(assay)
    const exited = assay.stop('SIGINT')
    await until('it drains', () => isDraining(assay), 1_000)
    const began = performance.now()
    login.finish()
    expect(await exited).toBe(0)
    expect(login.statuses()).toEqual([200])
    expect(login.text()).toMatch(/^Connection: close\r$/im)
    expect(performance.now() - began).toBeLessThan(2_500)
  })

  test('endless requests are cut off, so that it ends within 10 s including the pause of SIGTERM', async () => {
    const assay = running.stuck
    const login = await beginLogin(assay)
    const began = performance.now()
    expect(await assay.stop('SIGINT')).toBe(0)
    expect(performance.now() - began).toBeLessThan(7_000)
    expect(performance.now() - began).toBeGreaterThan(4_000)
    await login.closed
    expect(login.statuses()).toEqual([])
  })
})
