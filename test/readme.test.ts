import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Running, startAssay, stopAll } from './support/process.ts'
import { copyInstallation } from './support/templates.ts'

/** The README's minute, pasted into a shell block by block, against a server that was started as it says. */

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8')
const chapter = /^## A minute with it$(.*?)^## /ms.exec(readme)![1]!
const blocks = [...chapter.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) => block!)

const root = mkdtempSync(join(tmpdir(), 'assay-readme-'))
let assay: Running
let outputs: string[]

/** Runs all blocks in one shell, and returns what each printed. */
async function paste(): Promise<string[]> {
  const script = blocks.map(block => `${block}printf '\\n--next--\\n'\n`).join('')
  const { stdout } = await promisify(execFile)('bash', [
    '-c',
    script.replaceAll('localhost:3001', `127.0.0.1:${assay.port}`),
  ])
  return stdout.split('\n--next--\n')
}

beforeAll(async () => {
  assay = await startAssay({ DATA_DIR: copyInstallation(join(root, 'data')) })
  outputs = await paste()
})
afterAll(async () => {
  await stopAll()
  rmSync(root, { recursive: true })
})

const bodyOf = (output: string) => JSON.parse(output.slice(output.indexOf('{')))

test('signing up prints nothing, so the API key is there', () => {
  expect(blocks).toHaveLength(6)
  expect(outputs[0]).toBe('')
})

test('issue and refresh return what the README shows', () => {
  const shown = JSON.parse(/^```json\n(\{"access_token".*)$/m.exec(chapter)![1]!)
  const issued = bodyOf(outputs[1]!)
  expect(Object.keys(issued)).toEqual(Object.keys(shown))
  expect(issued).toMatchObject({ token_type: 'Bearer', expires_in: shown.expires_in, scope: shown.scope })
  expect(bodyOf(outputs[2]!).refresh_token).not.toBe(issued.refresh_token)
})

test('verify answers 200 with the user in headers', () => {
  const [, id] = /X-Auth-Customer: (\w+)/.exec(outputs[3]!)!
  const [, shown] = /^```\n(HTTP.*?)…\n```$/ms.exec(chapter)!
  const lines = shown!
    .replace(/(?<=X-Auth-Customer: )\w+/, id!)
    .trim()
    .split('\n')
  for (const line of lines) expect(outputs[3]).toContain(`${line}\r\n`)
})

test('introspect returns the claims in the order that the README shows', () => {
  const shown = [...chapter.matchAll(/^\{"active".*$/gm)][0]![0].matchAll(/"(\w+)":/g)
  const names = [...shown].map(([, name]) => name)
  expect(Object.keys(bodyOf(outputs[4]!)).slice(0, names.length)).toEqual(names)
})

test('after revoke the same verify answers 401', () => {
  expect(outputs[5]).toMatch(/HTTP\/1\.1 401 Unauthorized\r\n/)
})
