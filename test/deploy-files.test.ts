import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { access, constants, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { loadConfig, SETTINGS } from '../server/config/load.ts'
import { startDemoBackend } from './support/backends.ts'
import { checkConfig, findNginx, protect } from './support/nginx.ts'

const ROOT = join(import.meta.dirname, '..')
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')

/** The lines without comments, with continued lines joined. */
const instructions = (text: string) =>
  text
    .replace(/^\s*#.*\n/gm, '')
    .replace(/\\\n/g, ' ')
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '')

describe.skipIf(!findNginx())('the nginx files (skipped where nginx is not installed)', () => {
  const upstreams = 'include assay/upstream.conf; upstream backend { server 127.0.0.1:3002; }'

  test('nginx accepts them without a warning', async () => {
    const { ok, output } =
      await checkConfig(`${upstreams} server { listen 127.0.0.1:3003; include assay/assay.conf;
      location / { ${protect('/_assay/verify')} }
      location /a/ { ${protect('/_assay/verify/scope=read write&aud=https://api.example.com')} }
      location /b/ { include assay/anonymous.conf; proxy_pass http://backend; } }`)
    expect(output).not.toMatch(/\[(warn|error|emerg)\]/)
    expect(ok).toBe(true)
  })

  test('the demo is valid, except for the names of its network', async () => {
    const demo = read('deploy/nginx/demo.conf').replace(
      /server (assay|backend):(\d+) resolve;/g,
      'server 127.0.0.1:$2;',
    )
    const { ok, output } = await checkConfig(demo)
    expect(output).not.toMatch(/\[(warn|error|emerg)\]/)
    expect(ok).toBe(true)
  })

  test('the rule that depends on the request works as described in the comment', async () => {
    const comment = read('deploy/nginx/assay.conf').replace(/^# ?/gm, '')
    const [map, location] = [/map \$request_method .*/, /location = \/_assay\/orders .*/].map(
      line => line.exec(comment)?.[0],
    )
    const { ok, output } = await checkConfig(
      `${map} ${upstreams} server { listen 127.0.0.1:3003; include assay/assay.conf; ${location}
        location / { ${protect('/_assay/orders')} } }`,
    )
    expect(output).not.toMatch(/\[(warn|error|emerg)\]/)
    expect(ok).toBe(true)
  })
})

test('identity.conf and anonymous.conf handle the same headers', () => {
  const headers = (file: string) => [
    ...read(`deploy/nginx/${file}.conf`).matchAll(/^proxy_set_header (X-Auth-\S+)/gm),
  ]
  const names = headers('identity').map(([, name]) => name)
  expect(names).toHaveLength(8)
  expect(headers('anonymous').map(([, name]) => name)).toEqual(names)
})

describe('Dockerfile', () => {
  const lines = instructions(read('Dockerfile'))
  const last = lines.slice(lines.findLastIndex(line => line.startsWith('FROM')))
  const all = (word: string) => last.filter(line => line.startsWith(`${word} `))

  test('has several stages, all from the official Node image', () => {
    const stages = lines.filter(line => line.startsWith('FROM '))
    expect(stages.length).toBeGreaterThan(1)
    for (const stage of stages) expect(stage).toMatch(/^FROM node:26-slim( AS \w+)?$/)
  })

  test('runs as the user node, without npm in between, and sets its stop signal and health check', () => {
    expect(all('USER')).toEqual(['USER node'])
    expect(all('ENTRYPOINT')).toEqual(['ENTRYPOINT ["node", "--disable-sigusr1", "/app/cli/main.ts"]'])
    expect(all('CMD')).toEqual(['CMD ["serve"]'])
    expect(all('STOPSIGNAL')).toEqual(['STOPSIGNAL SIGTERM'])
    expect(all('HEALTHCHECK')[0]).toMatch(/CMD \["node", "-e", .*\/healthz/)
    expect(all('VOLUME')).toEqual(['VOLUME /data'])
    expect(all('EXPOSE')).toEqual(['EXPOSE 3001'])
  })

  test('copies the files that run, and .dockerignore excludes all others', () => {
    const copied = all('COPY').flatMap(line =>
      line
        .split(' ')
        .filter(word => !word.startsWith('-'))
        .slice(1, -1),
    )
    expect(copied.sort()).toEqual([
      '/app/node_modules',
      'cli',
      'db',
      'openapi.yaml',
      'package.json',
      'server',
    ])
    expect(instructions(read('.dockerignore'))).toEqual([
      '*',
      '!package.json',
      '!package-lock.json',
      '!.npmrc',
      '!openapi.yaml',
      '!server',
      '!cli',
      '!db',
    ])
  })

  test('excludes the pinned Node according to package.json, and no other optional package', () => {
    const install = lines.find(line => line.includes('npm ci'))
    expect(install).toContain('--omit=dev')
    expect(install).not.toContain('--omit=optional')
    expect(install).toContain("require('./package.json').optionalDependencies")
    const { optionalDependencies } = JSON.parse(read('package.json'))
    for (const name of Object.keys(optionalDependencies)) expect(name).toMatch(/^node-/)
  })

  test('its environment variables are settings', () => {
    const values = Object.fromEntries(
      all('ENV').flatMap(line =>
        line
          .split(' ')
          .slice(1)
          .map(pair => pair.split('=')),
      ),
    )
    expect(values).toMatchObject({ NODE_ENV: 'production', HOST: '0.0.0.0', DATA_DIR: '/data' })
    const config = loadConfig(values, path => readFileSync(path, 'utf8'))
    expect(config).toMatchObject({ host: '0.0.0.0', port: 3001, dataDir: '/data', signup: 'closed' })
  })
})

test('every file with settings for Assay closes sign-up', () => {
  const files = readdirSync(join(ROOT, 'deploy'), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && !entry.parentPath.endsWith('/secrets'))
    .map(({ parentPath, name }) => join(parentPath, name).slice(ROOT.length + 1))
  const setting = /^[^#]*\b(ISSUER|DATA_DIR|DATABASE_URL|DATABASE_URL_FILE)[:=]/m
  const settings = [...files, 'compose.yaml', 'Dockerfile'].filter(file => setting.test(read(file)))
  expect(settings.sort()).toEqual([
    'Dockerfile',
    'compose.yaml',
    'deploy/kubernetes/kustomization.yaml',
    'deploy/systemd/assay.service',
  ])
  for (const file of settings) expect(read(file)).toMatch(/^[^#]*\bSIGNUP(: |=)closed\b/m)
})

interface Service {
  image?: string
  environment?: Record<string, string>
  ports?: string[]
  secrets?: string[]
  volumes?: string[]
  healthcheck?: object
  depends_on?: Record<string, { condition: string }>
}

describe('compose.yaml', () => {
  const compose: {
    services: Record<string, Service>
    secrets: Record<string, { file: string }>
    networks: { default: { ipam: { config: { subnet: string }[] } } }
  } = parse(read('compose.yaml'))
  const { services, secrets } = compose

  test('has the four services, each with a health check and with its dependencies', () => {
    expect(Object.keys(services).sort()).toEqual(['assay', 'backend', 'nginx', 'postgres'])
    for (const service of Object.values(services)) expect(service.healthcheck).toBeDefined()
    const healthy = { condition: 'service_healthy' }
    expect(services.assay?.depends_on).toEqual({ postgres: healthy })
    expect(services.nginx?.depends_on).toEqual({ assay: healthy, backend: healthy })
    expect(services.postgres?.image).toBe('postgres:17')
  })

  test('is reachable over loopback only, the backend and the database not at all', () => {
    for (const port of Object.values(services).flatMap(({ ports = [] }) => ports))
      expect(port).toMatch(/^127\.0\.0\.1:/)
    expect(services.backend?.ports).toBeUndefined()
    expect(services.postgres?.ports).toBeUndefined()
  })

  test('contains no secret itself: each is in a file that git ignores', () => {
    for (const [name, { file }] of Object.entries(secrets)) {
      expect(file).toBe(`./deploy/secrets/${name}`)
      expect(() => execFileSync('git', ['check-ignore', '--quiet', file], { cwd: ROOT })).not.toThrow()
    }
    const secret = SETTINGS.filter(setting => setting.secret).map(({ name }) => name)
    expect(secret.filter(name => name in (services.assay?.environment ?? {}))).toEqual([])
  })

  test('mounts only files that exist', async () => {
    const mounts = Object.values(services).flatMap(({ volumes = [] }) => volumes)
    for (const mount of mounts.filter(mount => mount.startsWith('.')))
      await expect(access(join(ROOT, mount.split(':')[0]!))).resolves.toBeUndefined()
  })

  test('with the secrets of make-secrets.sh, Assay accepts every setting', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'assay-secrets-'))
    makeSecrets(dir)
    const environment = services.assay?.environment ?? {}
    const opened: string[] = []
    const config = loadConfig(environment, path => {
      opened.push(path)
      return readFileSync(path.replace('/run/secrets', dir), 'utf8')
    })
    await rm(dir, { recursive: true })
    expect(opened.map(path => path.replace('/run/secrets/', '')).sort()).toEqual(
      services.assay?.secrets?.sort(),
    )
    expect(config.databaseUrl).toMatch(/^postgres:\/\/assay:\w{64}@postgres:5432\/assay$/)
    expect(config.signup).toBe('closed')
    expect(config.trustProxy).toHaveLength(1)
    expect(environment.TRUST_PROXY).toBe(compose.networks.default.ipam.config[0]?.subnet)
    const known = SETTINGS.flatMap(({ name }) => [name as string, `${name}_FILE`])
    expect(Object.keys(environment).filter(name => !known.includes(name))).toEqual([])
  })
})

const makeSecrets = (dir: string) =>
  spawnSync('sh', [join(ROOT, 'deploy/make-secrets.sh'), dir], { encoding: 'utf8' })

describe('make-secrets.sh', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'assay-secrets-'))
  })
  afterEach(() => rm(dir, { recursive: true }))
  const contents = async () =>
    Object.fromEntries((await readdir(dir)).map(name => [name, readFileSync(join(dir, name), 'utf8')]))

  test('creates every secret of compose.yaml, and a second run changes none', async () => {
    expect(makeSecrets(dir).status).toBe(0)
    const first = await contents()
    expect(Object.keys(first).sort()).toEqual(Object.keys(parse(read('compose.yaml')).secrets).sort())
    expect(new Set(Object.values(first)).size).toBe(5)
    expect(makeSecrets(dir).status).toBe(0)
    expect(await contents()).toEqual(first)
  })

  test('never overwrites: missing secrets are added and match the existing ones', async () => {
    await writeFile(join(dir, 'postgres_password'), 'mine')
    const run = makeSecrets(dir)
    expect(run.stdout).toContain('postgres_password: kept')
    const { postgres_password, database_url } = await contents()
    expect(postgres_password).toBe('mine')
    expect(database_url).toBe('postgres://assay:mine@postgres:5432/assay')
  })

  test('only the owner can open the folder; in it, a container of any user can read, and nobody can write', async () => {
    makeSecrets(dir)
    const mode = async (path: string) => (await stat(path)).mode & 0o777
    expect(await mode(dir)).toBe(0o700)
    for (const name of await readdir(dir)) expect(await mode(join(dir, name))).toBe(0o444)
  })

  test('prints no secret', async () => {
    const { stdout, stderr } = makeSecrets(dir)
    for (const secret of Object.values(await contents())) expect(stdout + stderr).not.toContain(secret)
  })
})

describe('.ci/run', () => {
  test('is executable, correct bash, and ends with the test command', async () => {
    await expect(access(join(ROOT, '.ci/run'), constants.X_OK)).resolves.toBeUndefined()
    expect(() => execFileSync('bash', ['-n', join(ROOT, '.ci/run')])).not.toThrow()
    expect(instructions(read('.ci/run')).at(-1)).toBe('npm test')
  })
})

describe('the demo backend', () => {
  test('answers with method, path and the identity from the gateway, and ends on request', async () => {
    const { port, child } = await startDemoBackend()
    const headers = { 'X-Auth-Subject': 'ann', Authorization: 'Bearer secret' }
    const response = await fetch(`http://127.0.0.1:${port}/orders/7?key=secret`, { method: 'PUT', headers })
    expect(await response.json()).toEqual({
      method: 'PUT',
      path: '/orders/7',
      identity: { 'x-auth-subject': 'ann' },
    })
    const exited = once(child, 'exit')
    child.kill('SIGTERM')
    expect(await exited).toEqual([0, null])
  })
})
