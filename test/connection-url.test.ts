import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { PeerCertificate } from 'node:tls'
import { afterAll, expect, test } from 'vitest'
import { isSamePlace, parseConnectionUrl } from '../db/connection-url.ts'

const folder = mkdtempSync(join(tmpdir(), 'assay-url-'))
const file = join(folder, 'ca.crt')
writeFileSync(file, 'a certificate')
afterAll(() => rmSync(folder, { recursive: true }))

const addresses = (url: string) => parseConnectionUrl(url).hosts.map(({ host, port }) => `${host} ${port}`)

test.each([
  ['postgres://h/d', ['h 5432']],
  ['postgresql://h:1/d', ['h 1']],
  ['postgres://h1:1,h2:2/d', ['h1 1', 'h2 2']],
  ['postgres://h1,h2:2/d', ['h1 5432', 'h2 2']],
  ['postgres://[::1]:1,10.0.0.1:2/d', ['::1 1', '10.0.0.1 2']],
  ['postgres://h1,h2/d?port=7', ['h1 7', 'h2 7']],
  ['postgres:///d?host=h1,h2&port=1,2', ['h1 1', 'h2 2']],
  ['postgres://u:p@/d?host=/run/postgres&port=2', ['/run/postgres 2']],
  ['postgres://u:p@/d?host=%2Frun%2Fpostgres', ['/run/postgres 5432']],
  ['postgres://u@%2Frun%2Fpostgres:3/d', ['/run/postgres 3']],
  ['postgres://h/d?host=other', ['other 5432']],
  ['postgres://', ['localhost 5432']],
])('%s leads to %j', (url, expected) => {
  expect(addresses(url)).toEqual(expected)
})

test.each([
  ['postgres://us%40er:p%23%2F%3A@h/d%2Fb', { user: 'us@er', password: 'p#/:', database: 'd/b' }],
  ['postgres://h?user=u&password=p%26w&dbname=d', { user: 'u', password: 'p&w', database: 'd' }],
  ['postgres://a:b@h/c?user=u&dbname=d', { user: 'u', password: 'b', database: 'd' }],
  ['postgres://h', { user: undefined, password: undefined, database: undefined }],
  ['postgres://h/d?options=-c%20lock_timeout%3D1', { options: '-c lock_timeout=1' }],
])('%s has the parts %j', (url, parts) => {
  expect(parseConnectionUrl(url)).toMatchObject(parts)
})

test.each([
  ['postgres://h/d', 'any'],
  ['postgres://h/d?target_session_attrs=primary', 'primary'],
  ['postgres://h1,h2/d', 'read-write'],
  ['postgres://h1,h2/d?target_session_attrs=any', 'any'],
])('%s requests %s sessions', (url, sessions) => {
  expect(parseConnectionUrl(url).sessions).toBe(sessions)
})

/** Undefined for plain text. */
function tlsOf(parameters: string) {
  const { tls } = parseConnectionUrl(`postgres://db.test/d?${parameters}`).hosts[0]!
  if (tls === undefined) return undefined
  const other = { subject: { CN: 'other.test' }, subjectaltname: 'DNS:other.test' } as PeerCertificate
  return {
    chain: tls.rejectUnauthorized !== false,
    ca: String(tls.ca ?? 'public'),
    host: tls.checkServerIdentity?.('localhost', other) !== undefined,
  }
}

const NOTHING = { chain: false, ca: 'public', host: false }
const CA = 'a certificate'

test.each([
  ['', undefined],
  ['sslmode=disable', undefined],
  ['ssl=false', undefined],
  ['sslmode=prefer', NOTHING],
  ['sslmode=require', NOTHING],
  ['sslmode=require&ssl=true', NOTHING],
  [`sslmode=require&sslrootcert=${file}`, { chain: true, ca: CA, host: false }],
  [`sslmode=verify-ca&sslrootcert=${file}`, { chain: true, ca: CA, host: false }],
  ['sslmode=verify-ca', { chain: true, ca: 'public', host: false }],
  [`sslmode=verify-full&sslrootcert=${file}`, { chain: true, ca: CA, host: true }],
  ['sslmode=verify-full', { chain: true, ca: 'public', host: true }],
  ['sslrootcert=system', { chain: true, ca: 'public', host: true }],
  ['sslmode=verify-full&sslrootcert=system', { chain: true, ca: 'public', host: true }],
  [`sslrootcert=${file}`, { chain: true, ca: CA, host: true }],
  ['ssl=true', { chain: true, ca: 'public', host: true }],
  ['ssl=1', { chain: true, ca: 'public', host: true }],
  ['sslnegotiation=direct', { chain: true, ca: 'public', host: true }],
])('with %s the certificate check is %j', (parameters, checks) => {
  expect(tlsOf(parameters)).toEqual(checks)
})

test('the certificate is checked for the host of the URL, even an IP address, whatever the driver would check', () => {
  const { hosts } = parseConnectionUrl('postgres://10.0.0.1,db.test/d?sslmode=verify-full')
  const certificate = { subject: { CN: 'x' }, subjectaltname: 'IP Address:10.0.0.1, DNS:db.test' }
  for (const { tls } of hosts)
    expect(tls!.checkServerIdentity!('localhost', certificate as PeerCertificate)).toBeUndefined()
})

test('a Unix socket is not encrypted, because it leads to this machine', () => {
  const { hosts } = parseConnectionUrl('postgres:///d?host=/run,db.test&sslmode=require')
  expect(hosts.map(({ tls }) => tls === undefined)).toEqual([true, false])
})

test.each([
  ['postgres://a:1@h/d', 'postgres://b:2@h/d', true],
  ['postgres://a:p%40@h1:1,h2/d?sslmode=require', 'postgres://a:q@h1:1,h2/d?sslmode=require', true],
  ['postgres://h/d?user=a&password=1', 'postgres://h/d?user=b&password=2', true],
  ['postgres://a:1@h', 'postgres://a:2@h', true],
  ['postgres://a:1@h', 'postgres://b:1@h', false],
  ['postgres://h?user=a', 'postgres://h?user=b', false],
  ['postgres://a:1@h/d', 'postgres://a:1@g/d', false],
  ['postgres://a:1@h/d', 'postgres://a:1@h:5433/d', false],
  ['postgres://a:1@h/d', 'postgres://a:1@h/e', false],
  ['postgres://a:1@h/d', 'postgres://a:1@h/d?sslmode=require', false],
  ['postgres://a:1@h/d?options=-c%20a=1', 'postgres://a:1@h/d?options=-c%20a=2', false],
  ['redis://:1@h:1/2', 'redis://u:3@h:1/2', true],
  ['redis://:1@h:1/2', 'redis://:1@h:1/3', false],
  ['redis://:1@h', 'rediss://:1@h', false],
])('whether %s and %s lead to the same place with any role: %s', (one, other, same) => {
  expect(isSamePlace(one, other)).toBe(same)
})
