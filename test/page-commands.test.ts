import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { bash, killAll } from './support/npm.ts'
import { blockOf, writeProgram } from './support/page-blocks.ts'
import { linkCheckout, paste } from './support/paste.ts'
import { freePort } from './support/port.ts'
import {
  NODE_COMPILE_CACHE,
  type Running,
  runCli,
  type Settings,
  startAssay,
  stopAll,
  until,
} from './support/process.ts'
import { findProgram } from './support/program.ts'
import { copyInstallation } from './support/templates.ts'
import { bearer, type Tokens } from './support/world.ts'

/** Commands of the pages in docs/, pasted into a checkout beside a running server. Only names and ids are replaced. */

const root = mkdtempSync(join(tmpdir(), 'assay-pages-'))
const checkout = join(root, 'checkout')
const DATA_DIR = join(checkout, 'data')
/** The customer's id on the pages. */
const EXAMPLE = 'k5m2q7xw3bfz6tha'
let server: Running
let settings: Settings

beforeAll(async () => {
  mkdirSync(checkout)
  linkCheckout(checkout)
  copyInstallation(DATA_DIR)
  const port = String(await freePort())
  settings = { ASSAY_URL: `http://127.0.0.1:${port}` }
  server = await startAssay({ DATA_DIR, PORT: port, ISSUER: settings.ASSAY_URL! })
})
afterAll(async () => {
  killAll()
  await stopAll()
  rmSync(root, { recursive: true })
})

/** Without ADMIN_TOKEN: the command line finds the token in the data folder of the checkout. */
const run = (commands: string, { words = [] as string[], more = {} as Settings } = {}) =>
  paste(commands, { cwd: checkout, settings: { ...settings, ...more }, words })

/** The output of a command for scripts. */
async function json(...words: string[]) {
  const { stdout, stderr } = await runCli({ ...settings, DATA_DIR }, [...words, '--json'])
  expect(stderr).toBe('')
  return JSON.parse(stdout)
}

async function createCustomer(email = `${crypto.randomUUID()}@example.com`) {
  const { customer, api_key } = await json('customers', 'create', email)
  return { id: customer.id as string, apiKey: api_key as string }
}

async function issue({ apiKey }: { apiKey: string }): Promise<Tokens> {
  const response = await fetch(`${server.url}/issue`, {
    method: 'POST',
    headers: { ...bearer(apiKey), 'Content-Type': 'application/json' },
    body: '{"subject":"user-42","refresh":true}',
  })
  return (await response.json()) as Tokens
}

const verify = async (token: string) =>
  (await fetch(`${server.url}/verify`, { headers: bearer(token) })).status

const canPaste = ['script', 'jq', 'curl'].every(findProgram)

describe.skipIf(!canPaste)('at a terminal (skipped where script, jq or curl is not installed)', () => {
  test('docs/operating.md: the commands that people need first', async () => {
    const customer = await createCustomer()
    const before = await issue(customer)
    const { access_token, session_id } = await issue(customer)
    writeFileSync(join(checkout, 'token.txt'), access_token)
    const values = { CUSTOMER: customer.id, SESSION: session_id! }
    const commands = blockOf('docs/operating.md', "alias assay='npm run -s assay --'", values)
    expect(await run(commands, { words: [customer.id, 'everyone'] })).toContain('eve@example.com')
    expect(await verify(before.access_token)).toBe(401)
  })

  test('docs/operating.md: ending all tokens, and rotating every customer twice', async () => {
    const customers = [await createCustomer(), await createCustomer()]
    const rotations = blockOf('docs/operating.md', "assay customers list --all --json | jq -r '.[].id' |")
    const commands = blockOf('docs/operating.md', 'assay revoke everyone --wait')
    expect(commands).toBe(`assay revoke everyone --wait\n${rotations}`)
    await run(commands, { words: ['everyone'] })
    for (const { id } of customers) {
      const keys: { use: string; state: string; version: number }[] = await json('secrets', 'list', id)
      const current = keys.filter(({ state }) => state === 'current')
      expect(current.map(({ version }) => version)).toEqual([3, 3])
    }
  })

  test('docs/operating.md: services', async () => {
    const values = { [EXAMPLE]: (await createCustomer()).id }
    const shown = await run(
      blockOf('docs/operating.md', 'assay services create --name gateway --may introspect', values),
    )
    expect(shown.match(/^credential /gm)).toHaveLength(3)
    const services: { name: string; may: string[] }[] = await json('services', 'list')
    expect(services.find(({ name }) => name === 'shop-api')!.may).toEqual(['issue', 'refresh'])
  })

  test('docs/accounts.md: one-time tokens', async () => {
    await createCustomer('ann@example.com')
    const shown = await run(blockOf('docs/accounts.md', 'assay customers reset-password ann@example.com'))
    expect(shown.match(/^token /gm)).toHaveLength(3)
  })

  test('docs/clients.md: reusable refresh tokens', async () => {
    const { id } = await createCustomer()
    const first =
      'npm run assay -- customers policy CUSTOMER --refresh-policy reusable --access-token-ttl 15m'
    await run(blockOf('docs/clients.md', first, { CUSTOMER: id }))
    const { policy } = await json('customers', 'show', id)
    expect(policy).toMatchObject({ refresh_policy: 'reusable', access_token_ttl: 900 })
  })

  test('docs/local-verification.md: a token is verified without asking', async () => {
    const page = 'docs/local-verification.md'
    const { id, apiKey } = await createCustomer()
    const first = `assay customers policy ${EXAMPLE} --signing-alg EdDSA --access-token-ttl 5m --max-access-token-ttl 5m`
    await run(blockOf(page, first, { [EXAMPLE]: id }))
    const { issuer } = (await json('customers', 'show', id)).local_verification
    const request = `curl -s $ISSUER/issue -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\`
    const { access_token } = JSON.parse(
      await run(blockOf(page, request), { more: { ISSUER: server.url, KEY: apiKey } }),
    )
    const folder = join(root, 'verifier')
    const program = "import { verify } from './verify.js'\nconsole.log((await verify(process.env.TOKEN)).sub)"
    writeProgram(folder, {
      'verify.js': blockOf(page, "import { createRemoteJWKSet, jwtVerify } from 'jose'"),
      'program.js': program,
    })
    const env = { TOKEN_ISSUER: issuer, TOKEN: access_token }
    const { stdout } = await promisify(execFile)(process.execPath, [join(folder, 'program.js')], { env })
    expect(stdout).toBe('user-42\n')
  })
})

test('docs/observing.md: the audit is piped to a shipper, and the cursor file says how far', async () => {
  const bin = join(root, 'bin')
  const shipped = join(root, 'shipped')
  const cursor = join(root, 'cursor')
  mkdirSync(bin)
  writeFileSync(join(bin, 'shipper'), `#!/bin/sh\nexec cat > ${shipped}\n`)
  chmodSync(join(bin, 'shipper'), 0o755)
  const first = 'assay audit --follow --json --after 0 --cursor-file /var/lib/audit-shipper/cursor | shipper'
  const commands = blockOf('docs/observing.md', first, { '/var/lib/audit-shipper': root })
  const PATH = `${bin}:${process.env.PATH}`
  const follower = bash(`alias assay='npm run -s assay --'\n${commands}`, { ...settings, PATH }, checkout)
  onTestFinished(async () => {
    follower.interrupt()
    await follower.exited
  })
  const { id } = await createCustomer()
  const lines = () => (existsSync(shipped) ? readFileSync(shipped, 'utf8').split('\n').slice(0, -1) : [])
  await until('the event is shipped', () => lines().some(line => JSON.parse(line).customer_id === id))
  const newest = () => JSON.parse(lines().at(-1)!).cursor
  await until('the cursor is stored', () => readFileSync(cursor, 'utf8') === `${newest()}\n`)
})

/** The lines of a block, each with `--help` instead of a run: all options are parsed before it is obeyed. */
const withHelp = (commands: string) =>
  commands
    .trim()
    .split('\n')
    .map(line => line.replace(/ *#.*/, ''))
    .map(line => `${line}${line.includes(' -- ') ? '' : ' --'} --help`)

test.each([
  [
    'docs/faults.md',
    'npm run faults                       # every fault ten times, with the transaction open for a whole minute',
  ],
  [
    'docs/performance.md',
    'npm run bench                                  # everything, in turns; about a quarter of an hour',
  ],
])('%s: the programs know the options that are shown', async (page, first) => {
  for (const command of withHelp(blockOf(page, first))) {
    const help = bash(command, { NODE_COMPILE_CACHE })
    expect([command, await help.exited]).toEqual([command, 0])
    expect(help.output()).toContain('usage: npm run')
  }
})
