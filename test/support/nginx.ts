import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Addresses, type Gateway, pathOf, runGateway, withAddresses } from './gateway.ts'
import { freePort } from './port.ts'
import { findProgram } from './program.ts'

export const SHIPPED = join(import.meta.dirname, '../../deploy/nginx')

export const findNginx = () => findProgram('nginx')

export interface Options extends Addresses {
  /** What a user may add: locations, and lines at the beginning of server {} and http {}. */
  locations?: string
  server?: string
  http?: string
  /** Replaces the shipped upstream.conf by these addresses. */
  upstream?: string
}

export interface Nginx extends Gateway {
  /** The error log so far. */
  errors(): Promise<string>
}

/** Starts a real nginx with the shipped files in its own directory; resolves once it accepts connections. */
export async function startNginx(options: Options): Promise<Nginx> {
  const port = await freePort()
  return start(port, await writeConfig(site(port, options), options))
}

/** As in compose.yaml: demo.conf with the addresses of its network replaced. */
export async function startDemo({ assay, backend }: Addresses): Promise<Nginx> {
  const port = await freePort()
  const demo = withAddresses(await readFile(join(SHIPPED, 'demo.conf'), 'utf8'), {
    'server assay:3001 resolve;': servers(assay),
    'backend:3002 resolve': `127.0.0.1:${backend}`,
    'listen 8080': `listen 127.0.0.1:${port}`,
  })
  return start(port, await writeConfig(demo))
}

async function start(port: number, folder: string): Promise<Nginx> {
  const gateway = await runGateway({ name: 'nginx', args: commandLine(folder), port, folder })
  return { ...gateway, errors: () => readFile(join(folder, 'error.log'), 'utf8') }
}

/** The output of `nginx -t` for an http block in which the shipped folder is `assay/`. */
export async function checkConfig(http: string): Promise<{ ok: boolean; output: string }> {
  const dir = await writeConfig(http)
  const { status, stderr } = spawnSync(pathOf('nginx'), ['-t', ...commandLine(dir)], { encoding: 'utf8' })
  await rm(dir, { recursive: true })
  return { ok: status === 0, output: stderr }
}

// Until it has read its configuration, nginx logs to a system folder.
const commandLine = (dir: string) => ['-p', dir, '-e', 'stderr', '-c', join(dir, 'nginx.conf')]

/** A folder like /etc/nginx with the shipped one in it. Only the addresses in upstream.conf are edited, as users would. */
async function writeConfig(http: string, at: Partial<Options> = {}): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'assay-nginx-'))
  await mkdir(join(dir, 'temp'))
  await symlink(SHIPPED, join(dir, 'assay'))
  const shipped = await readFile(join(SHIPPED, 'upstream.conf'), 'utf8')
  const edited = shipped.replace('server 127.0.0.1:3001;', servers(at.assay ?? [3001]))
  await writeFile(join(dir, 'upstream.conf'), at.upstream ?? edited)
  await writeFile(join(dir, 'nginx.conf'), topLevel(dir, http))
  return dir
}

/** As in the comment in upstream.conf. */
const servers = (ports: number[]) =>
  ports.map(port => `server 127.0.0.1:${port}${ports.length > 1 ? ' fail_timeout=1s' : ''};`).join(' ')

const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']

const topLevel = (dir: string, http: string) => `
# The workers may read what this process may.
${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off;
worker_processes 1;
pid ${dir}/nginx.pid;
error_log ${dir}/error.log notice;
events { worker_connections 256; }
http {
  access_log off;
  ${TEMPORARY.map(name => `${name}_temp_path ${dir}/temp/${name};`).join('\n  ')}
  ${http}
}
`

const site = (port: number, { backend, locations = '', server = '', http = '' }: Options) => `
  ${http}
  include upstream.conf;
  upstream backend { server 127.0.0.1:${backend}; }
  server {
    listen 127.0.0.1:${port};
    ${server}
    include assay/assay.conf;
    location / { ${protect('/_assay/verify')} }
    location /reading/ { ${protect('/_assay/verify/scope=read')} }
    location /writing/ { ${protect('/_assay/verify/scope=read write')} }
    location /open/ { include assay/anonymous.conf; proxy_pass http://backend; }
    ${locations}
  }
`

/** The lines of a protected location, as the shipped files tell users to write them. */
export const protect = (question: string) =>
  `auth_request "${question}"; include assay/identity.conf; proxy_pass http://backend;`
