import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Sent, startCollector } from './support/collector.ts'
import { bash, killAll } from './support/npm.ts'
import { blockOf } from './support/page-blocks.ts'
import { logLines, type Running, type Settings, startAssay, stopAll, until } from './support/process.ts'
import { copyInstallation } from './support/templates.ts'

/** The one flag that turns traces on, as in docs/observing.md. api/traces.test.ts tests the spans. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const made = join(root, 'made')
let account: { api_key: string; access_token: string }

beforeAll(async () => {
  const assay = await startAssay({ DATA_DIR: copyInstallation(made) })
  const asked = { email: 'one@example.com', password: 'correct horse battery' }
  account = (await (await post(assay, '/api/auth/signup', asked, {})).json()) as typeof account
  await assay.stop('SIGINT')
})
afterEach(() => {
  killAll()
  return stopAll()
})
afterAll(() => rmSync(root, { recursive: true }))

/** A copy of the database with the customer. */
function copyMade() {
  const DATA_DIR = mkdtempSync(join(root, 'data-'))
  cpSync(made, DATA_DIR, { recursive: true })
  return DATA_DIR
}

/** It has not loaded the customer yet. */
const start = (settings: Settings) => startAssay({ DATA_DIR: copyMade(), ...settings })

const post = ({ url }: Running, path: string, body: object, headers: Record<string, string>) =>
  fetch(url + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })

const trace = { id: '0af7651916cd43dd8448eb211c80319c', caller: 'b7ad6b7169203331' }
const traceparent = `00-${trace.id}-${trace.caller}-01`

/** A verify of a customer that is not cached, one of a cached customer, and an issue. */
async function ask(assay: Running): Promise<Response[]> {
  const verify = () =>
    fetch(`${assay.url}/verify`, {
      headers: { Authorization: `Bearer ${account.access_token}`, traceparent },
    })
  const issue = () => post(assay, '/issue', {}, { Authorization: `Bearer ${account.api_key}`, traceparent })
  return [await verify(), await verify(), await issue()]
}

const statuses = (answers: Response[]) => answers.map(({ status }) => status)
const named = (spans: Sent[], name: string) => spans.filter(span => span.name === name)

const isLoaded = (assay: Running) => logLines(assay).some(({ msg }) => msg.includes('an OpenTelemetry SDK'))

test('with the flag a collector gets every span until the end', async () => {
  const collector = await startCollector()
  const assay = await start(collector.settings)
  expect(isLoaded(assay)).toBe(true)
  expect(statuses(await ask(assay))).toEqual([200, 200, 200])
  expect(await assay.stop('SIGTERM')).toBe(0)
  const { spans, resources } = collector
  expect(spans.map(({ name }) => name).sort()).toEqual([
    'GET /verify',
    'POST /issue',
    'findRecords',
    'insertTokens',
  ])
  expect(new Set(spans.map(({ traceId }) => traceId))).toEqual(new Set([trace.id]))
  for (const [request, statement] of [
    ['GET /verify', 'findRecords'],
    ['POST /issue', 'insertTokens'],
  ] as const) {
    const [parent] = named(spans, request)
    expect(parent!.parentSpanId).toBe(trace.caller)
    expect(named(spans, statement)[0]!.parentSpanId).toBe(parent!.spanId)
  }
  expect(resources[0]).toContainEqual({ key: 'service.name', value: { stringValue: 'assay' } })
})

test('the command of the page sets the flag', async () => {
  const { NODE_OPTIONS: _, ...settings } = (await startCollector()).settings
  const first = 'npm exec -- node --disable-sigusr1 --import ./deploy/opentelemetry/traces.mjs server/main.ts'
  const command = blockOf('docs/observing.md', first)
  const server = bash(command, { ...settings, DATA_DIR: copyMade(), PORT: '0' })
  await until('it listens', () => server.output().includes('"msg":"listening"'))
  expect(server.output()).toContain('an OpenTelemetry SDK is loaded')
  server.interrupt()
  await server.exited
})

test('without it nothing is exported, and every answer is the same', async () => {
  const collector = await startCollector()
  const { NODE_OPTIONS: _, ...others } = collector.settings
  const [on, off] = [await start(collector.settings), await start(others)]
  const [told, untold] = [await ask(on), await ask(off)]
  expect(isLoaded(off)).toBe(false)
  expect(await off.stop('SIGTERM')).toBe(0)
  expect(collector.requests()).toBe(0)
  const shape = ({ status, headers }: Response) => [status, [...headers.keys()]]
  expect(untold.map(shape)).toEqual(told.map(shape))
})

test('a collector that does not answer delays no request, and the process ends in time', async () => {
  const collector = await startCollector({ silent: true })
  const assay = await start(collector.settings)
  expect(statuses(await ask(assay))).toEqual([200, 200, 200])
  expect(await assay.stop('SIGTERM')).toBe(0)
  expect(collector.requests()).toBeGreaterThan(0)
})
