import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Running, startAssay, stopAll, until } from './support/process.ts'
import { exchange, openRaw, type Raw } from './support/raw.ts'
import { copyInstallation } from './support/templates.ts'

/** Behaviour that only a real socket shows, with the server in its own process. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const DATA_DIR = join(root, 'data')
let assay: Running
let customer: { access_token: string; api_key: string }

beforeAll(async () => {
  assay = await startAssay({ DATA_DIR: copyInstallation(DATA_DIR) })
  const signedUp = await fetch(`${assay.url}/api/auth/signup`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email: 'one@example.com', password: 'correct horse battery' }),
  })
  customer = (await signedUp.json()) as typeof customer
})
afterAll(async () => {
  await stopAll()
  rmSync(root, { recursive: true })
})

const CHUNKED = 'Transfer-Encoding: chunked'
const JSON_TYPE = 'Content-Type: application/json'
const FORM = 'Content-Type: application/x-www-form-urlencoded'
const head = (path: string, headers: string[]) =>
  `POST ${path} HTTP/1.1\r\nHost: a\r\n${headers.join('\r\n')}\r\n\r\n`
const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
const authorized = () => `Authorization: Bearer ${customer.api_key}`

const verifies = async () => {
  const headers = { Authorization: `Bearer ${customer.access_token}` }
  return (await fetch(`${assay.url}/verify`, { headers })).status
}

test('a connection is kept for 75 s, longer than nginx keeps an idle one', async () => {
  const raw = await openRaw(assay.port)
  raw.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n')
  await until('an answer', () => raw.statuses().length === 1)
  expect(raw.text()).toMatch(/^Connection: keep-alive\r$/im)
  expect(raw.text()).toMatch(/^Keep-Alive: timeout=75\r$/im)
  raw.destroy()
})

describe('H44 (CVE-2026-44456) a chunked body', () => {
  test('is refused with 413 at the first byte over 16 KiB, without waiting for its end', async () => {
    const raw = await openRaw(assay.port)
    raw.write(head('/issue', [JSON_TYPE, authorized(), CHUNKED]))
    for (let sent = 0; sent < 16; sent++) raw.write(chunk(' '.repeat(1024)))
    await verifies()
    const beforeTheLast = raw.statuses()
    raw.write(chunk(' '))
    await until('an answer', () => raw.statuses().length === 1, 3_000)
    expect(beforeTheLast).toEqual([])
    expect(raw.statuses()).toEqual([413])
    expect(raw.text()).toContain('16384')
    raw.destroy()
  })

  test('is read when it has 16 KiB and ends', async () => {
    const raw = await openRaw(assay.port)
    raw.write(head('/issue', [JSON_TYPE, authorized(), CHUNKED, 'Connection: close']))
    raw.write(`${chunk(`{}${' '.repeat(16_382)}`)}0\r\n\r\n`)
    await raw.closed
    expect(raw.statuses()).toEqual([200])
  })

  test.each(['/issue', '/api/auth/login', '/introspect'])('of 100 MB to %s is cut off early', async path => {
    const raw = await openRaw(assay.port)
    const type = path === '/introspect' ? FORM : JSON_TYPE
    raw.write(head(path, [type, authorized(), CHUNKED]))
    expect(await flood(raw, 100_000_000)).toBe('cut off')
    expect(raw.statuses()).toEqual([413])
    // Bytes in the system's buffers on both sides have not been read by the server.
    expect(raw.sent()).toBeLessThan(16_000_000)
  })

  test.each(['/verify', '/healthz', '/nothing'])(
    'of 100 MB is not read by %s: the answer comes first, and memory stays',
    async path => {
      const send = async () => {
        const raw = await openRaw(assay.port)
        raw.write(head(path, [CHUNKED]))
        await until('an answer', () => raw.statuses().length === 1)
        await flood(raw, 100_000_000)
        expect(raw.statuses()).toHaveLength(1)
        return raw
      }
      const before = peakMemory(assay.pid)
      const open = await Promise.all([send(), send(), send(), send()])
      // Chunks that were read and dropped are garbage for some time.
      expect(peakMemory(assay.pid) - before).toBeLessThan(150_000_000)
      for (const raw of open) raw.destroy()
      expect(await verifies()).toBe(200)
    },
  )
})

/** The highest resident memory of a process (bytes). */
function peakMemory(pid: number): number {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return Number(kilobytes) * 1024
}

/** Sends this many bytes, or stops when the server closes. */
async function flood(raw: Raw, bytes: number) {
  const piece = chunk(' '.repeat(64 * 1024))
  for (let written = 0; written < bytes && !raw.isClosed(); written += piece.length) {
    raw.write(piece)
    await until('the piece is taken, or the connection cut', () => raw.isClosed() || raw.sent() >= written)
  }
  return raw.isClosed() ? 'cut off' : 'all taken'
}

describe('H44 smuggling: bodies that a proxy and a server may delimit differently', () => {
  /** Answered 200 if it is ever treated as a request. */
  const SMUGGLED = 'GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n'
  const chunked = (body: string) => [CHUNKED, body] as const
  const plain = (header: string) => [header, SMUGGLED] as const
  const ended = (header: string) => [header, `0\r\n\r\n${SMUGGLED}`] as const

  const CASES: Record<string, readonly [headers: string, body: string]> = {
    'length and chunks': ended(`Content-Length: ${5 + SMUGGLED.length}\r\n${CHUNKED}`),
    'chunks and length': ended(`${CHUNKED}\r\nContent-Length: ${5 + SMUGGLED.length}`),
    'a length of 0 and chunks': ended(`Content-Length: 0\r\n${CHUNKED}`),
    'two lengths': plain(`Content-Length: 0\r\nContent-Length: ${SMUGGLED.length}`),
    'the same length twice': plain('Content-Length: 0\r\nContent-Length: 0'),
    'a list of lengths': plain('Content-Length: 0, 0'),
    'a length with a sign': plain('Content-Length: +0'),
    'a negative length': plain('Content-Length: -1'),
    'a length in hex': plain('Content-Length: 0x0'),
    'a length in two words': plain('Content-Length: 0 0'),
    'a length with an exponent': plain('Content-Length: 0e1'),
    'a length over 64 bits': plain('Content-Length: 18446744073709551616'),
    'an empty length': plain('Content-Length: '),
    'an unknown coding': ended('Transfer-Encoding: xchunked'),
    'chunks that are not the last coding': ended('Transfer-Encoding: chunked, identity'),
    'chunks twice': ended(`${CHUNKED}\r\n${CHUNKED}`),
    'chunks, then another coding': ended(`${CHUNKED}\r\nTransfer-Encoding: x`),
    'a vertical tab before the coding': ended('Transfer-Encoding: \x0bchunked'),
    'a quoted coding': ended('Transfer-Encoding: "chunked"'),
    'a space before the colon': ended('Transfer-Encoding : chunked'),
    'a folded coding': ended('Transfer-Encoding:\r\n chunked'),
    'a folded header': plain('X-A: b\r\n c\r\nContent-Length: 0'),
    'a bare LF between headers': plain('X-A: b\nContent-Length: 0'),
    'a bare CR in a header': plain('X-A: b\rContent-Length: 0'),
    'a NUL in a header': plain('X-A: b\0\r\nContent-Length: 0'),
    'a NUL in a name': plain('Content-Length\0: 0'),
    'a header without a colon': plain('Content-Length 0'),
    'a chunk size with 0x': chunked(`0x0\r\n\r\n${SMUGGLED}`),
    'a negative chunk size': chunked(`-1\r\n\r\n${SMUGGLED}`),
    'a space before the chunk size': chunked(` 0\r\n\r\n${SMUGGLED}`),
    'a space after the chunk size': chunked(`0 \r\n\r\n${SMUGGLED}`),
    'an empty chunk size': chunked(`\r\n\r\n${SMUGGLED}`),
    'a chunk size over 64 bits': chunked(`10000000000000000\r\n\r\n${SMUGGLED}`),
    'a bare LF after an extension': chunked(`0;a\n\r\n${SMUGGLED}`),
    'a bare LF after the chunk size': chunked(`0\n\n${SMUGGLED}`),
    'a chunk longer than its size': chunked(`1\r\nab0\r\n\r\n${SMUGGLED}`),
    'a chunk without its end': chunked(`1\r\na0\r\n\r\n${SMUGGLED}`),
    'a chunk ended by a bare LF': chunked(`1\r\na\n0\r\n\r\n${SMUGGLED}`),
  }

  test('two requests in one write get two answers, so a smuggled one would be visible', async () => {
    const raw = await exchange(
      assay.port,
      head('/issue', [JSON_TYPE, authorized(), 'Content-Length: 0']) + SMUGGLED,
      500,
    )
    expect(raw.statuses()).toEqual([400, 200])
  })

  test.each(Object.entries(CASES))('%s', async (_, [headers, body]) => {
    for (const path of ['/verify', '/issue']) {
      const raw = await exchange(assay.port, head(path, [JSON_TYPE, authorized(), headers]) + body, 5_000)
      const [last, ...earlier] = raw.statuses().reverse()
      expect(last).toBe(400)
      // /verify answers by the headers, before a body can turn out to be broken.
      expect(earlier).toEqual(path === '/verify' && earlier.length > 0 ? [401] : [])
    }
  })

  test('a body that /verify never reads is not treated as the next request', async () => {
    const raw = await openRaw(assay.port)
    raw.write(`${head('/verify', [`Content-Length: ${SMUGGLED.length}`])}${SMUGGLED}`)
    raw.write(`GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    await raw.closed
    expect(raw.statuses()).toEqual([401, 404])
  })
})

test('H44 (CVE-2026-21710) a header called __proto__ is a header like any other', async () => {
  const raw = await exchange(
    assay.port,
    head('/issue', ['__proto__: x', 'Content-Length: 0', 'Connection: close']),
  )
  expect(raw.statuses()).toEqual([401])
  expect(await verifies()).toBe(200)
})

test('H45 (CVE-2018-12122) 500 slow sockets delay no other client, and are closed with 408 after 5 s', async () => {
  const began = performance.now()
  const slow = await Promise.all(Array.from({ length: 500 }, () => openRaw(assay.port)))
  // One in ten sends nothing at all, the others a letter now and then.
  const talking = slow.filter((_, i) => i % 10 > 0)
  for (const raw of talking) raw.write('GET /verify HTTP/1.1\r\nHost: a\r\nX-Slow: ')
  const dripping = setInterval(() => talking.forEach(raw => void (raw.isClosed() || raw.write('a'))), 1_000)
  const took: number[] = []
  for (let i = 0; i < 100; i++) {
    const sent = performance.now()
    expect(await verifies()).toBe(200)
    took.push(performance.now() - sent)
  }
  expect(took.sort((a, b) => a - b)[98]).toBeLessThan(250)
  expect(slow.filter(raw => raw.isClosed())).toHaveLength(0)
  await until('all slow sockets are closed', () => slow.every(raw => raw.isClosed()))
  clearInterval(dripping)
  expect(performance.now() - began).toBeGreaterThan(4_500)
  expect(performance.now() - began).toBeLessThan(9_000)
  expect(new Set(slow.flatMap(raw => raw.statuses()))).toEqual(new Set([408]))
})
