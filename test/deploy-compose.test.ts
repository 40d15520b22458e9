import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { findBinaries } from '../faults/postgres.ts'
import { makeNamespace, mayMakeNamespace } from './support/namespace.ts'
import { findNginx } from './support/nginx.ts'
import { until } from './support/process.ts'

/**
 * compose.yaml without a container engine: its services with their commands, settings, mounts, host names, ports, secrets
 * and health checks, on their own network. Not covered: the images' own files, and read_only.
 */

const ROOT = join(import.meta.dirname, '..')
const { services, secrets } = parse(readFileSync(join(ROOT, 'compose.yaml'), 'utf8')) as {
  services: Record<string, Service>
  secrets: Record<string, { file: string }>
}

interface Service {
  command?: string[]
  environment?: Record<string, string>
  volumes?: string[]
  working_dir?: string
  secrets?: string[]
  healthcheck: { test: string[] }
}

/** The user `node` of Node's image. */
const NODE_USER = 1000
/** The place of the image's /app, which cannot be created in a root folder that is shared with this machine. */
const APP = '/mnt/app'
/** The files that are copied into the image, and those that compose mounts. */
const PARTS = ['node_modules', 'cli', 'db', 'server', 'deploy', 'openapi.yaml', 'package.json']
const ADDRESSES: Record<string, string> = {
  assay: '172.30.47.2',
  postgres: '172.30.47.3',
  nginx: '172.30.47.4',
  backend: '172.30.47.5',
}

const can = mayMakeNamespace() && findBinaries() !== undefined && findNginx() !== undefined

describe.skipIf(!can)('compose.yaml', () => {
  let namespace: Awaited<ReturnType<typeof makeNamespace>>
  const folder = mkdtempSync(join(tmpdir(), 'assay-compose-'))

  beforeAll(async () => {
    const made = join(folder, 'secrets')
    execFileSync('sh', [join(ROOT, 'deploy/make-secrets.sh'), made])
    const steps = [...addresses(), ...secretFiles(made), ...application(), ...nginxFiles()]
    namespace = await makeNamespace(steps.join('\n'))
  })
  afterAll(async () => {
    await namespace?.destroy()
    rmSync(folder, { recursive: true })
  })

  /** Waits until the service's own health check succeeds. */
  const isHealthy = (name: string) =>
    until(
      `${name} is healthy`,
      () => {
        const [kind, ...words] = services[name]!.healthcheck.test
        expect(kind).toBe('CMD')
        const path = `${findBinaries()}:${join(APP, 'node_modules/.bin')}:${process.env.PATH}`
        try {
          namespace.run(words, { env: { PATH: path, ...services[name]!.environment } })
          return true
        } catch {
          return false
        }
      },
      30_000,
    )

  /** The answer to `curl` in the same network. */
  const curl = (...words: string[]) => namespace.run(['curl', '--silent', '--max-time', '5', ...words])
  const statusOf = (...words: string[]) =>
    curl('--output', '/dev/null', '--write-out', '%{http_code}', ...words)
  const json = (...words: string[]) => JSON.parse(curl('-H', 'Content-Type: application/json', ...words))
  const bearer = (token: string) => ['-H', `Authorization: Bearer ${token}`]

  test('each secret can be read by any user of a container', () => {
    for (const name of Object.keys(secrets))
      expect(namespace.run(['cat', `/run/secrets/${name}`], { user: NODE_USER })).not.toBe('')
  })

  test('postgres is initialized as by its image, and is healthy', async () => {
    const {
      POSTGRES_USER: user,
      POSTGRES_DB: database,
      POSTGRES_PASSWORD_FILE: file,
    } = services.postgres!.environment!
    const asPostgres = ['runuser', '-u', 'postgres', '--']
    const program = (name: string) => join(findBinaries()!, name)
    const initdb = [
      '-D',
      '/run/data/postgres',
      '-U',
      user!,
      `--pwfile=${file}`,
      '--auth-host=scram-sha-256',
      '-E',
      'UTF8',
      '-N',
    ]
    namespace.run([...asPostgres, program('initdb'), ...initdb])
    namespace.run([
      ...asPostgres,
      'sh',
      '-c',
      'echo "host all all all scram-sha-256" >>/run/data/postgres/pg_hba.conf',
    ])
    namespace.start([
      ...asPostgres,
      program('postgres'),
      '-D',
      '/run/data/postgres',
      '-c',
      'listen_addresses=*',
      '-k',
      '/run/postgresql',
    ])
    await until('it answers', () => {
      try {
        namespace.run([program('createdb'), '-h', '/run/postgresql', '-U', user!, database!])
        return true
      } catch {
        return false
      }
    })
    await isHealthy('postgres')
  })

  test('assay starts with its secrets, as a user without privileges, and is healthy', async () => {
    const node = process.execPath.replace(ROOT, APP)
    // ENV, ENTRYPOINT and CMD of the Dockerfile, which another test checks.
    const env = {
      NODE_ENV: 'production',
      HOST: '0.0.0.0',
      PORT: '3001',
      DATA_DIR: '/data',
      ...services.assay!.environment,
    }
    namespace.start([node, join(APP, 'cli/main.ts'), 'serve'], { user: NODE_USER, env })
    await isHealthy('assay')
  })

  test('the backend and nginx start, and are healthy', async () => {
    const { command, environment } = services.backend!
    const node = process.execPath.replace(ROOT, APP)
    const [, ...words] = command!
    namespace.start([node, ...words], {
      user: NODE_USER,
      env: environment!,
      cwd: join(APP, 'deploy/demo-backend'),
    })
    await isHealthy('backend')
    namespace.start([findNginx()!, '-e', 'stderr', '-c', '/etc/nginx/nginx.conf'])
    await isHealthy('nginx')
  })

  test('a customer created by the operator gets through nginx to the backend, and no other client does', () => {
    const operator = readFileSync(join(folder, 'secrets/admin_token'), 'utf8')
    const login = { email: 'ann@example.com', password: 'correct horse battery' }
    const created = json(
      ...bearer(operator),
      '-d',
      JSON.stringify(login),
      'http://127.0.0.1:3001/admin/customers',
    )
    const issue = (scope: string) =>
      json(...bearer(created.api_key), '-d', JSON.stringify({ scope }), 'http://127.0.0.1:3001/issue')
        .access_token
    const [plain, reports] = [issue('read'), issue('reports')]
    expect(statusOf('http://127.0.0.1:8080/')).toBe('401')
    expect(json(...bearer(plain), 'http://127.0.0.1:8080/orders').identity).toMatchObject({
      'x-auth-customer': created.customer.id,
    })
    expect(statusOf(...bearer(plain), 'http://127.0.0.1:8080/reports/')).toBe('403')
    expect(statusOf(...bearer(reports), 'http://127.0.0.1:8080/reports/')).toBe('200')
    expect(statusOf('http://127.0.0.1:8080/public/')).toBe('200')
    expect(json('-d', JSON.stringify(login), 'http://127.0.0.1:8080/api/auth/login').access_token).toMatch(
      /^ey/,
    )
  })
})

/** Shell commands that mount a file or folder of this machine at its place in a container. */
const mount = (from: string, to: string) => [
  `if [ -d ${from} ]; then mkdir -p ${to}; else touch ${to}; fi`,
  `mount --bind ${from} ${to}`,
]
const inMemory = (folder: string) => `mount -t tmpfs tmpfs ${folder}`

const addresses = () => [
  ...Object.values(ADDRESSES).map(address => `ip address add ${address}/24 dev lo`),
  inMemory('/run'),
  ...Object.entries({ localhost: '127.0.0.1', ...ADDRESSES }).map(
    ([name, address]) => `echo ${address} ${name} >>/run/hosts`,
  ),
  ...mount('/run/hosts', '/etc/hosts'),
]

const secretFiles = (made: string) => [
  'mkdir -p /run/secrets /run/postgresql /run/data && chown postgres /run/postgresql /run/data',
  ...Object.keys(secrets).flatMap(name => mount(join(made, name), `/run/secrets/${name}`)),
]

const application = () => [
  inMemory('/mnt'),
  `mkdir ${APP}`,
  ...PARTS.flatMap(part => mount(join(ROOT, part), join(APP, part))),
]

const nginxFiles = () => [
  inMemory('/etc/nginx'),
  'mkdir /etc/nginx/conf.d',
  ...services.nginx!.volumes!.flatMap(volume => {
    const [from = '', to = ''] = volume.split(':')
    return mount(join(ROOT, from), to)
  }),
  // The names are in /etc/hosts here, and Debian's nginx does not support `resolve`.
  'sed "s/ resolve;/;/" /etc/nginx/conf.d/default.conf >/run/demo.conf',
  ...mount('/run/demo.conf', '/etc/nginx/conf.d/default.conf'),
  `printf '%s' '${NGINX_CONF}' >/etc/nginx/nginx.conf`,
]

/** As in the image nginx:stable, but in the foreground, and with temporary files in memory. */
const NGINX_CONF = `
user root;
daemon off;
worker_processes 1;
pid /run/nginx.pid;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path /run/nginx-client;
  proxy_temp_path /run/nginx-proxy;
  fastcgi_temp_path /run/nginx-fastcgi;
  uwsgi_temp_path /run/nginx-uwsgi;
  scgi_temp_path /run/nginx-scgi;
  include /etc/nginx/conf.d/*.conf;
}
`
