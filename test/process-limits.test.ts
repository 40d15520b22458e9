import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { issue, signUp } from './support/calls.ts'
import { type Running, startAssay, stopAll } from './support/process.ts'
import { copyInstallation } from './support/templates.ts'

/** The default limits of a server. Other tests raise them, because they send requests faster than users do. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
let assay: Running

beforeAll(async () => {
  assay = await startAssay({ DATA_DIR: copyInstallation(join(root, 'data')) })
})
afterAll(async () => {
  await stopAll()
  rmSync(root, { recursive: true })
})

test('one session can be refreshed sixty times a minute, then 429 names the limit; others are not affected', async () => {
  const customer = await signUp(assay)
  let { refresh_token: token } = await issue(assay, customer.apiKey, 'user-1')
  for (let done = 0; done < 60; done++) token = (await refreshed(token)).refresh_token
  const refused = await fetch(`${assay.url}/refresh`, refreshWith(token))
  const wait = refused.headers.get('retry-after')
  expect([refused.status, Number(wait) > 0 && Number(wait) <= 60]).toEqual([429, true])
  expect(refused.headers.get('ratelimit-policy')).toBe('"session";q=60;w=60')
  expect(refused.headers.get('ratelimit')).toBe(`"session";r=0;t=${wait}`)
  const other = await issue(assay, customer.apiKey, 'user-2')
  expect((await refreshed(other.refresh_token!)).access_token).toBeTruthy()
})

const refreshWith = (token: string) => ({
  method: 'POST',
  body: new URLSearchParams({ refresh_token: token }),
})

async function refreshed(token: string) {
  const answer = await fetch(`${assay.url}/refresh`, refreshWith(token))
  expect(answer.status).toBe(200)
  return (await answer.json()) as { access_token: string; refresh_token: string }
}
