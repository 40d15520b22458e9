import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { freePort } from './port.ts'
import { findProgram } from './program.ts'

export const SHIPPED = join(import.meta.dirname, '../../deploy/nginx')

export const findNginx = () => findProgram('nginx')

export interface Options {
  /** The ports of Assay's replicas. */
  assay: number[]
  backend: number
  /** What a user may have besides: more locations, and lines at the beginning of server {} and http {}. */
  locations?: string
  server?: string
  http?: string
}

export interface Nginx {
  url: string
  /** The error log so far. */
  errors(): Promise<string>
  stop(): Promise<void>
}

/** Starts a real nginx with the shipped files in a directory of its own; answers once it accepts connections. */
export async function startNginx(options: Options): Promise<Nginx> {
  const port = await freePort()
  const dir = await writeConfig(site(port, options), options.assay)
  const child = spawn(nginxPath(), commandLine(dir), { stdio: ['ignore', 'ignore', 'pipe'] })
  const stop = async () => {
    await end(child)
    await rm(dir, { recursive: true })
  }
  const stderr = collect(child)
  await listening(child, port).catch(async cause => {
    await stop()
    throw new Error(`nginx did not start: ${stderr()}`, { cause })
  })
  return { url: `http://127.0.0.1:${port}`, errors: () => readFile(join(dir, 'error.log'), 'utf8'), stop }
}

/** What `nginx -t` says of an http block in which the shipped folder is `assay/`. */
export async function checkConfig(http: string): Promise<{ ok: boolean; output: string }> {
  const dir = await writeConfig(http)
  const { status, stderr } = spawnSync(nginxPath(), ['-t', ...commandLine(dir)], { encoding: 'utf8' })
  await rm(dir, { recursive: true })
  return { ok: status === 0, output: stderr }
}

function nginxPath(): string {
  const path = findNginx()
  if (path === undefined) throw new Error('nginx is not installed')
  return path
}

// Before it has read its configuration, nginx would log to a folder of the system.
const commandLine = (dir: string) => ['-p', dir, '-e', 'stderr', '-c', join(dir, 'nginx.conf')]

/** A folder like /etc/nginx with the shipped one in it; only the addresses in upstream.conf are edited, as a user would. */
async function writeConfig(http: string, assay = [3001]): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'assay-nginx-'))
  await mkdir(join(dir, 'temp'))
  await symlink(SHIPPED, join(dir, 'assay'))
  const upstream = await readFile(join(SHIPPED, 'upstream.conf'), 'utf8')
  await writeFile(join(dir, 'upstream.conf'), upstream.replace('server 127.0.0.1:3001;', servers(assay)))
  await writeFile(join(dir, 'nginx.conf'), topLevel(dir, http))
  return dir
}

/** As the comment in upstream.conf has it. */
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

function collect(child: ChildProcess) {
  let text = ''
  child.stderr?.setEncoding('utf8').on('data', chunk => {
    text += chunk
  })
  return () => text
}

async function listening(child: ChildProcess, port: number) {
  const deadline = performance.now() + 5_000
  while (!(await accepts(port))) {
    if (child.exitCode !== null) throw new Error(`nginx exited with ${child.exitCode}`)
    if (performance.now() > deadline) throw new Error('nginx accepts no connection after 5 s')
    await new Promise(resolve => setImmediate(resolve))
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}

async function end(child: ChildProcess) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  await exited
}

/** The demo backend, as compose.yaml runs it: it answers with who nginx says that the caller is. */
export async function startDemoBackend(): Promise<{
  port: number
  child: ChildProcess
  stop(): Promise<void>
}> {
  const script = join(import.meta.dirname, '../../deploy/demo-backend/server.ts')
  const env = { PATH: process.env.PATH, PORT: '0' }
  const child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'pipe', 'ignore'] })
  const [line] = await once(createInterface(child.stdout), 'line')
  const { port } = JSON.parse(line.replace('listening ', ''))
  return { port, child, stop: () => end(child) }
}

export type Listener = Awaited<ReturnType<typeof startListener>>

/** A server that notes all that reaches it, behind nginx or in Assay's place. A path that ends in /fail is answered 500. */
export async function startListener() {
  const heard: { path: string | undefined; headers: IncomingHttpHeaders }[] = []
  const server = createServer((request, response) => {
    heard.push({ path: request.url, headers: request.headers })
    if (request.url?.endsWith('/fail')) response.statusCode = 500
    request.resume().on('end', () => response.end('heard'))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async () => {
    server.close()
    server.closeAllConnections()
  }
  return { heard, port: (server.address() as AddressInfo).port, stop }
}
