import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../test/support/port.ts'
import { findProgram } from '../test/support/program.ts'
import type { Target } from './load.ts'
import { LOAD, SERVER, start } from './processes.ts'
import { scratchFolder } from './scratch.ts'

/**
 * nginx with Assay's shipped files in front of a location. Its auth_request goes to Assay or, as the upper limit, to another
 * nginx that always answers yes. It runs on the load's core, so that the server behind it has a core of its own, as Assay has
 * without nginx.
 */

const SHIPPED = join(import.meta.dirname, '../deploy/nginx')

export const gatewayTo = (asked: number) => startNginx(LOAD, port => protecting(port, asked))

/** A static answer with one of Assay's headers. */
export const saysYes = () =>
  startNginx(SERVER, port => `server { listen 127.0.0.1:${port}; location / { ${YES} } }`)

const YES = 'add_header X-Auth-Customer abcdefghijklmnop; return 200;'

const protecting = (port: number, asked: number) => `
  include upstream-${asked}.conf;
  server {
    listen 127.0.0.1:${port};
    include assay/assay.conf;
    location / { auth_request /_assay/verify; include assay/identity.conf; try_files /nothing @granted; }
    location @granted { add_header X-Granted-To $assay_customer; return 200; }
  }`

async function startNginx(core: number, http: (port: number) => string): Promise<Target> {
  const port = await freePort()
  const folder = await scratchFolder()
  await mkdir(join(folder, 'temp'))
  await symlink(SHIPPED, join(folder, 'assay'))
  await writeFile(join(folder, 'nginx.conf'), topLevel(folder, await withUpstream(folder, http(port))))
  const nginx = findProgram('nginx')
  if (nginx === undefined) throw new Error('nginx is not installed; run: apt-get install nginx')
  const command = [nginx, '-p', folder, '-e', join(folder, 'error.log'), '-c', join(folder, 'nginx.conf')]
  const child = start(core, command, { stdio: 'ignore' })
  await accepting(port)
  return { port, pid: child.pid! }
}

/** Uses the shipped upstream.conf, in which only the address is changed, as the file asks for. */
async function withUpstream(folder: string, http: string): Promise<string> {
  const asked = /include upstream-(\d+)\.conf/.exec(http)?.[1]
  if (asked === undefined) return http
  const shipped = await readFile(join(SHIPPED, 'upstream.conf'), 'utf8')
  const name = `upstream-${asked}.conf`
  await writeFile(join(folder, name), shipped.replace('127.0.0.1:3001', `127.0.0.1:${asked}`))
  return http
}

const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']

const topLevel = (folder: string, http: string) => `
${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off;
worker_processes 1;
pid ${folder}/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000;
  ${TEMPORARY.map(name => `${name}_temp_path ${folder}/temp/${name};`).join('\n  ')}
  ${http}
}
`

async function accepting(port: number) {
  for (let tries = 0; tries < 100; tries++) {
    const answered = await fetch(`http://127.0.0.1:${port}/`).then(
      () => true,
      () => false,
    )
    if (answered) return
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  throw new Error('nginx does not answer')
}
