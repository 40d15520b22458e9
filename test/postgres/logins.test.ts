import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { findBinaries, type OwnPostgres, startPostgres } from '../../faults/postgres.ts'
import { signUp, verify } from '../support/calls.ts'
import { type Authority, makeAuthority } from '../support/certificates.ts'
import { changed, createDatabase, direct, PASSWORD } from '../support/database.ts'
import { runAssay, runCli, startAssay, stopAll } from '../support/process.ts'
import { refusalOf } from '../support/refusal.ts'
import { copyDatabase } from '../support/templates.ts'

/** H58: how servers authenticate clients and how clients verify servers, as in production. */

const secrets = {
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  TRUST_PROXY: '127.0.0.1',
}

const servers: OwnPostgres[] = []
async function ownServer(...options: Parameters<typeof startPostgres>): Promise<OwnPostgres> {
  const server = await startPostgres(...options)
  servers.push(server)
  return server
}

afterEach(stopAll)
afterAll(async () => {
  for (const server of servers) await server.stop()
})

/** It serves: writes are committed and can be read. */
async function expectServing(url: string) {
  const assay = await startAssay({ ...secrets, DATABASE_URL: url })
  expect(await verify(assay, (await signUp(assay)).account)).toBe(200)
  expect(await assay.stop('SIGINT')).toBe(0)
}

/** A start that ends with 69 and logs `why` in one line. */
async function expectRefused(url: string, why: RegExp) {
  const { code, message } = await refusalOf(url)
  expect(message).toMatch(why)
  expect(message).not.toContain('\n')
  expect(message).not.toContain(new URL(url).password || 'no password')
  expect(code).toBe(69)
}

/** The same for a process. */
async function expectNoStart(url: string, why: RegExp) {
  const { code, stdout, stderr } = await runAssay({ ...secrets, DATABASE_URL: url })
  expect(stderr).toMatch(why)
  expect(stderr.trim().split('\n')).toHaveLength(1)
  expect(stderr).not.toContain(new URL(url).password || 'no password')
  expect({ code, stdout }).toEqual({ code: 69, stdout: '' })
}

/** `assay doctor` reports the same, in both output formats, without a stack trace. */
async function expectDiagnosed(url: string, why: RegExp) {
  for (const form of [[], ['--json']]) {
    const doctor = await runCli({ ...secrets, DATABASE_URL: url }, ['doctor', '--offline', ...form])
    expect(doctor.stdout).toMatch(why)
    expect(doctor.stderr).not.toMatch(/^\s+at /m)
    expect(doctor.stdout + doctor.stderr).not.toContain(new URL(url).password)
    expect(doctor.code).toBe(1)
  }
}

const withParameters = (url: string, parameters: Record<string, string>) =>
  `${url}?${new URLSearchParams(parameters)}`

describe.skipIf(!findBinaries())('H58 a password', () => {
  test.each(['scram-sha-256', 'md5'] as const)(
    'lets Assay in at a server that requires %s, and a wrong one does not',
    async auth => {
      const server = await ownServer({ auth, settings: [`password_encryption = '${auth}'`] })
      const { url } = await createDatabase(server.url)
      expect(
        await server.ask(
          `select left(rolpassword, 3) from pg_authid where rolname = '${new URL(url).username}'`,
        ),
      ).toBe(auth === 'md5' ? 'md5' : 'SCR')
      await expectServing(url)
      const wrong = changed(url, { password: 'hunter2-Zq8Lk3' })
      await expectNoStart(wrong, /the user or the password is wrong/)
      await expectDiagnosed(wrong, /the user or the password is wrong/)
      await expectRefused(changed(url, { username: 'nobody_here' }), /the user or the password is wrong/)
    },
  )

  test('and other parts can be in the query of the URL, as in libpq, and in PGPASSWORD', async () => {
    const server = servers[0]!
    const { url } = await createDatabase(server.url)
    const without = changed(url, { password: '' })
    const { host, port, username: user, pathname } = new URL(url)
    const parts = { port, user, password: PASSWORD, dbname: pathname.slice(1) }
    await expectServing(withParameters(`postgres://${host.split(':')[0]}`, parts))
    const assay = await startAssay({ ...secrets, DATABASE_URL: without, PGPASSWORD: PASSWORD })
    expect(await assay.stop('SIGINT')).toBe(0)
  })

  test('is not needed at a Unix socket that trusts its users, in the form that Cloud SQL documents', async () => {
    const server = await ownServer()
    const { url } = await createDatabase(server.url)
    await server.setHba(['local all all trust'])
    const { port, username, pathname } = new URL(url)
    const folder = encodeURIComponent(server.folder)
    await expectServing(`postgres://${username}:@${pathname}?host=${server.folder}&port=${port}`)
    await expectServing(`postgres://${username}:unneeded@${pathname}?host=${folder}&port=${port}`)
    await expectServing(`postgres://${username}@${folder}:${port}${pathname}`)
  })
})

test('H58 CI runs on a server that asks for passwords', async () => {
  const { url, drop } = await copyDatabase()
  const { code } = await runAssay({
    ...secrets,
    DATABASE_URL: changed(direct(url), { password: 'hunter2-Zq8Lk3' }),
  })
  await drop()
  if (process.env.CI) expect(code).toBe(69)
})

describe.skipIf(!findBinaries())('H58 TLS', () => {
  let authority: Authority
  let other: Authority
  let server: OwnPostgres
  let url: string

  beforeAll(async () => {
    authority = makeAuthority()
    other = makeAuthority()
    server = await ownServer()
    url = (await createDatabase(server.url)).url
  })
  afterAll(() => {
    authority.remove()
    other.remove()
  })

  const present = (hosts: string[]) =>
    server.speakTls({ ...authority.sign('server', hosts, server.folder), ca: authority.file })
  const verifyFull = (ca: Authority) => ({ sslmode: 'verify-full', sslrootcert: ca.file })

  test('that the server does not support is named', async () => {
    for (const sslmode of ['prefer', 'require'])
      await expectRefused(
        withParameters(url, { sslmode }),
        /the server does not offer TLS; set sslmode=disable/,
      )
  })

  test('with verify-full accepts a host by its name and by its address, if the certificate has both', async () => {
    await present(['DNS:localhost', 'IP:127.0.0.1'])
    await expectServing(withParameters(url, verifyFull(authority)))
    await expectServing(
      withParameters(changed(url, { host: `localhost:${new URL(url).port}` }), verifyFull(authority)),
    )
    const assay = await startAssay({ ...secrets, DATABASE_URL: withParameters(url, verifyFull(authority)) })
    const encrypted = `select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) where usename = '${new URL(url).username}'`
    expect(await server.ask(encrypted)).toBe('t')
    await assay.stop('SIGINT')
  })

  test('with verify-full refuses a certificate of another authority, or for another host', async () => {
    const untrusted = /certificate is not signed by a trusted CA; name its CA's file with sslrootcert=FILE/
    await expectRefused(withParameters(url, verifyFull(other)), untrusted)
    await expectRefused(withParameters(url, { sslmode: 'verify-full' }), untrusted)
    // Its name is `localhost`, which a driver that ignores the address would check.
    await present(['DNS:localhost'])
    await expectRefused(withParameters(url, verifyFull(authority)), /certificate is for another host/)
    await expectServing(withParameters(url, { ...verifyFull(authority), sslmode: 'verify-ca' }))
    await expectRefused(withParameters(url, { ...verifyFull(other), sslmode: 'verify-ca' }), untrusted)
    await expectRefused(withParameters(url, { ...verifyFull(other), sslmode: 'require' }), untrusted)
  })

  test('that the server requires and the URL lacks is named', async () => {
    await server.setHba(['hostssl all all 127.0.0.1/32 scram-sha-256'])
    await expectRefused(url, /if it requires TLS, add sslmode=require to the URL/)
    await expectServing(withParameters(url, { sslmode: 'require' }))
    await expectServing(
      withParameters(changed(url, { host: `localhost:${new URL(url).port}` }), {
        ...verifyFull(authority),
        channel_binding: 'require',
      }),
    )
  })

  test('can replace the password by a client certificate', async () => {
    const { cert, key } = authority.sign('client', ['DNS:client.test'], server.folder)
    const role = new URL(url).username
    await server.setHba(['hostssl all all 127.0.0.1/32 cert map=clients'], [`clients client ${role}`])
    const certificate = { sslcert: cert, sslkey: key }
    await expectServing(
      withParameters(changed(url, { password: '' }), {
        ...verifyFull(authority),
        sslmode: 'require',
        ...certificate,
      }),
    )
    await expectRefused(
      withParameters(changed(url, { password: 'hunter2-Zq8Lk3' }), { sslmode: 'require' }),
      /the server refuses this user, database or address/,
    )
    await expectRefused(
      withParameters(url, { sslmode: 'require', sslrootcert: join(server.folder, 'none.crt') }),
      /a file that its URL names \(sslrootcert, sslcert, sslkey\) does not exist/,
    )
  })
})
