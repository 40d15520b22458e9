import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { runGateway, withAddresses } from '../support/gateway.ts'
import { findNginx } from '../support/nginx.ts'
import { freePort } from '../support/port.ts'
import { bearer, makeWorld } from '../support/world.ts'

/** The nginx configuration from the README and docs/gateways.md, for two sites. */

const ROOT = join(import.meta.dirname, '../..')

const CHAPTERS = { 'README.md': '## Your gateway', 'docs/gateways.md': '## nginx' }
type Page = keyof typeof CHAPTERS

/** The first block of this language in a page's chapter on nginx. */
async function block(page: Page, language: string) {
  const text = await readFile(join(ROOT, page), 'utf8')
  const chapter = text.slice(text.indexOf(`${CHAPTERS[page]}\n`))
  return new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, 's').exec(chapter)![1]!
}

const topLevel = (etc: string) => `
${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off;
pid ${etc}/nginx.pid;
error_log ${etc}/error.log;
events { worker_connections 64; }
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `${name}_temp_path ${etc}/${name};`).join('\n  ')}
  include conf.d/*.conf;
}
`

/** A folder like /etc/nginx with the page's commands run on it, and one site for each of these ports. */
async function etcNginx(page: Page, assay: number, backend: number, ports: number[]) {
  const etc = await mkdtemp(join(tmpdir(), 'assay-sites-'))
  await mkdir(join(etc, 'conf.d'))
  await writeFile(join(etc, 'nginx.conf'), topLevel(etc))
  execFileSync('sh', ['-ec', (await block(page, 'sh')).replaceAll('/etc/nginx', etc)], { cwd: ROOT })
  const upstream = join(etc, 'assay/upstream.conf')
  const edited = withAddresses(await readFile(upstream, 'utf8'), { '127.0.0.1:3001': `127.0.0.1:${assay}` })
  await writeFile(upstream, edited)
  for (const port of ports) {
    const addresses = { 'listen 8080': `listen 127.0.0.1:${port}`, '127.0.0.1:3002': `127.0.0.1:${backend}` }
    await writeFile(
      join(etc, `conf.d/site-${port}.conf`),
      withAddresses(await block(page, 'nginx'), addresses),
    )
  }
  return etc
}

describe.skipIf(!findNginx())('an example for nginx (skipped where there is none)', () => {
  const pages = Object.keys(CHAPTERS) as Page[]
  test.each(pages)('of %s serves two sites from one configuration, and both ask Assay', async page => {
    const world = await makeWorld()
    onTestFinished(() => world.stop())
    const assay = await world.replica()
    const customer = await assay.signUp()
    const { port } = await assay.serve()
    const backend = await startListener()
    onTestFinished(backend.stop)
    const ports = [await freePort(), await freePort()]
    const folder = await etcNginx(page, port, backend.port, ports)
    const args = ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf')]
    const nginx = await runGateway({ name: 'nginx', args, port: ports[1]!, folder })
    onTestFinished(nginx.stop)
    const token = async (scope: string) => (await customer.issue({ scope })).json.access_token as string
    for (const site of ports) {
      const get = async (headers: Record<string, string>) =>
        (await fetch(`http://127.0.0.1:${site}/orders/7`, { headers })).status
      expect(await get({})).toBe(401)
      expect(await get(bearer(await token('read')))).toBe(403)
      expect(await get(bearer(await token('orders:read')))).toBe(200)
    }
    expect(backend.heard.map(({ headers }) => headers['x-auth-customer'])).toEqual([customer.id, customer.id])
  })
})
