import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parse } from 'yaml'
import { startDemoBackend } from '../support/backends.ts'
import { holdsTheEdge } from '../support/edge.ts'
import { findNginx, startDemo } from '../support/nginx.ts'
import { startAssay } from '../support/process.ts'
import { ADMIN_TOKEN, makeWorld } from '../support/world.ts'

holdsTheEdge('nginx', findNginx, startDemo)

const ROOT = join(import.meta.dirname, '../..')
const read = (file: string) => readFile(join(ROOT, file), 'utf8')

describe.skipIf(!findNginx())('compose.yaml, without the containers (skipped where nginx is missing)', () => {
  /** Assay with the settings of compose.yaml, except for its secrets and the address of its proxy. */
  async function startComposed() {
    const MASTER_KEYS = `m1:${randomBytes(32).toString('base64')}`
    const world = await makeWorld({ MASTER_KEYS })
    onTestFinished(() => world.stop())
    const { environment } = parse(await read('compose.yaml')).services.assay
    const settings = Object.entries<string>(environment).filter(
      ([name]) => !/_FILE$|^TRUST_PROXY$/.test(name),
    )
    const own = { MASTER_KEYS, ADMIN_TOKEN, DATABASE_URL: world.url!, ISSUER: world.config.issuer }
    const assay = await startAssay({ ...Object.fromEntries(settings), ...own })
    onTestFinished(async () => void (await assay.stop('SIGKILL')))
    return assay
  }

  /** The block of docs/docker.md after this text, as users paste it, with other ports. */
  async function pasted(after: string, ports: Record<string, number>) {
    const page = await read('docs/docker.md')
    const [, block = ''] = /```sh\n(.*?)```/s.exec(page.slice(page.indexOf(after))) ?? []
    return block.replace(/localhost:(\d+)/g, (_, port: string) => `127.0.0.1:${ports[port]}`)
  }

  test('sign-up is closed, and the commands of docs/docker.md get a report through nginx', async () => {
    const assay = await startComposed()
    const backend = await startDemoBackend()
    onTestFinished(async () => void (await backend.stop()))
    const nginx = await startDemo({ assay: [assay.port], backend: backend.port })
    onTestFinished(nginx.stop)
    const account = JSON.stringify({ email: 'ann@example.com', password: 'correct horse battery' })
    const headers = { 'Content-Type': 'application/json' }
    for (const url of [assay.url, nginx.url]) {
      const refused = await fetch(`${url}/api/auth/signup`, { method: 'POST', headers, body: account })
      expect(refused.status).toBe(403)
    }
    const folder = await mkdtemp(join(tmpdir(), 'assay-compose-'))
    onTestFinished(() => rm(folder, { recursive: true }))
    await mkdir(join(folder, 'deploy/secrets'), { recursive: true })
    await writeFile(join(folder, 'deploy/secrets/admin_token'), ADMIN_TOKEN)
    const commands = await pasted('## Compose', { 3001: assay.port, 8080: nginx.port })
    const { stdout } = await promisify(execFile)('bash', ['-c', commands], { cwd: folder })
    expect(stdout).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    const report = JSON.parse(stdout.split('\r\n\r\n')[1]!)
    expect(report).toMatchObject({ path: '/reports/', identity: { 'x-auth-subject': 'user-42' } })
    expect((await fetch(`${nginx.url}/`)).status).toBe(401)
  })
})
