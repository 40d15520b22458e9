import { isIP } from 'node:net'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ClientIps } from '../server/lib/client-ip.ts'
import { createLog } from '../server/lib/logger.ts'

const log = createLog('silent', { write() {} })
const find = (trusted: string[], peer: string | undefined, forwardedFor?: string) =>
  new ClientIps(trusted, log).clientIp(peer, forwardedFor)

const PROXY = '127.0.0.1'

describe('the first address that is not a trusted proxy is the client', () => {
  test.each([
    ['without a proxy', [], '203.0.113.1', '198.51.100.1', '203.0.113.1'],
    ['with a peer that is no proxy', ['10.0.0.0/8'], '203.0.113.1', '198.51.100.1, 10.0.0.1', '203.0.113.1'],
    ['behind one', [PROXY], PROXY, '203.0.113.1', '203.0.113.1'],
    ['behind one without a header', [PROXY], PROXY, undefined, PROXY],
    [
      'behind one that adds to what the client claims',
      [PROXY],
      PROXY,
      '198.51.100.1, 203.0.113.1',
      '203.0.113.1',
    ],
    [
      'behind three, in ranges of both families',
      ['10.0.0.0/8', 'fd00::/8'],
      '10.1.1.1',
      '198.51.100.1, 203.0.113.1,fd00::9 , 10.2.2.2',
      '203.0.113.1',
    ],
    ['where all are trusted', ['10.0.0.0/8'], '10.1.1.1', '10.9.9.9, 10.2.2.2', '10.9.9.9'],
    [
      'behind several headers, which Node joins',
      [PROXY],
      PROXY,
      ['198.51.100.1', '203.0.113.1'].join(', '),
      '203.0.113.1',
    ],
    ['with tabs as white space', [PROXY], PROXY, '203.0.113.1\t,\t127.0.0.1\t', '203.0.113.1'],
    ['with empty members', [PROXY], PROXY, '198.51.100.1, 203.0.113.1,,127.0.0.1,', '203.0.113.1'],
  ])('%s', (_, trusted, peer, forwardedFor, client) => {
    expect(find(trusted, peer, forwardedFor)).toBe(client)
  })
})

describe('an IPv4 address in IPv6 notation is an IPv4 address', () => {
  test.each([
    ['of the peer', [PROXY], '::ffff:127.0.0.1', undefined, PROXY],
    ['of a proxy', [PROXY], '::ffff:127.0.0.1', '203.0.113.1', '203.0.113.1'],
    ['of the client', [PROXY], PROXY, '::FFFF:203.0.113.1', '203.0.113.1'],
    ['in the settings', ['::ffff:127.0.0.1'], PROXY, '203.0.113.1', '203.0.113.1'],
    ['in the settings as a range', ['::ffff:127.0.0.0/104'], PROXY, '203.0.113.1', '203.0.113.1'],
  ])('%s', (_, trusted, peer, forwardedFor, client) => {
    expect(find(trusted, peer, forwardedFor)).toBe(client)
  })

  test('and no IPv6 range contains it', () => {
    expect(find(['::/1'], '10.0.0.1', '203.0.113.1')).toBe('10.0.0.1')
  })
})

describe('a port is not part of the address', () => {
  test.each([
    ['of a client', [PROXY], PROXY, '203.0.113.8:51234', '203.0.113.8'],
    ['of a client with IPv6', [PROXY], PROXY, '[2001:db8::9]:443', '2001:db8::9'],
    ['that is left out behind brackets', [PROXY], PROXY, '[2001:db8::9]', '2001:db8::9'],
    ['behind IPv4 in IPv6', [PROXY], PROXY, '[::ffff:203.0.113.8]:443', '203.0.113.8'],
    ['behind an interface', [PROXY], PROXY, '[fe80::1%eth0]:443', 'fe80::1%eth0'],
    [
      'of trusted proxies',
      ['10.0.0.0/8', 'fd00::/8'],
      '10.1.1.1',
      '198.51.100.1:1, 203.0.113.8:51234, [fd00::9]:80, 10.2.2.2:65535',
      '203.0.113.8',
    ],
  ])('%s', (_, trusted, peer, forwardedFor, client) => {
    expect(find(trusted, peer, forwardedFor)).toBe(client)
  })

  test('in IPv6 without brackets the last group is not a port', () => {
    expect(find([PROXY], PROXY, '2001:db8::9:443')).toBe('2001:db8::9:443')
  })
})

describe('the log warns once', () => {
  const warningsOf = (trusted: string[], ...headers: string[]) => {
    const lines: string[] = []
    const clients = new ClientIps(
      trusted,
      createLog('warn', { write: (line: string) => void lines.push(line) }),
    )
    for (const header of [...headers, ...headers]) clients.clientIp(PROXY, header)
    return lines.map(line => JSON.parse(line).msg)
  }

  test('that a trusted proxy sends no valid address, without repeating it', () => {
    const [warning, ...more] = warningsOf([PROXY], '203.0.113.1', 'unknown', 'canary', 'canary, unknown')
    expect(warning).toMatch(/not an IP address with or without a port, .*make it send the client's address/)
    expect(warning).not.toMatch(/canary|unknown/)
    expect(more).toEqual([])
  })

  test('that TRUST_PROXY is empty, without repeating what a stranger sends', () => {
    expect(warningsOf([], 'unknown')).toEqual([expect.stringMatching(/TRUST_PROXY is empty/)])
    expect(warningsOf(['10.0.0.1'], 'unknown')).toEqual([])
  })

  test('and never where ports are sent, or members are empty', () => {
    expect(warningsOf([PROXY], '203.0.113.8:51234', '[2001:db8::9]:443', '', ',', '203.0.113.8,')).toEqual([])
  })
})

test('a link-local address may have an interface name', () => {
  expect(find(['fe80::/10'], 'fe80::1%eth0', '203.0.113.1')).toBe('203.0.113.1')
  expect(find([PROXY], PROXY, 'fe80::1%eth0')).toBe('fe80::1%eth0')
})

describe('an invalid address is never accepted as one', () => {
  test.each([
    'unknown',
    '_hidden',
    '1',
    '0x7f.1',
    '127.1',
    '0177.0.0.1',
    '203.0.113.1:',
    '203.0.113.1:_port',
    '203.0.113.1:123456',
    '1:80',
    '[203.0.113.1',
    '[]:443',
    '[2001:db8::1]443',
    '[[2001:db8::1]]',
    '"[2001:db8::1]:443"',
    'fe80::1%<script>',
    `fe80::1%${'a'.repeat(100)}`,
    "'; drop table",
    '\u0000',
  ])('%j', text => {
    expect(find([PROXY], PROXY, text)).toBe(PROXY)
    expect(find([PROXY, '10.0.0.1'], PROXY, `203.0.113.1, ${text}, 10.0.0.1`)).toBe('10.0.0.1')
  })

  test('whatever the header is', () => {
    const word = fc.oneof(
      fc.string(),
      fc.ipV4(),
      fc.ipV6(),
      fc.ipV4Extended(),
      fc.constantFrom('127.0.0.1', ' ', ''),
    )
    fc.assert(
      fc.property(fc.array(word), words => {
        expect(isIP(find([PROXY, '::/3'], PROXY, words.join(','))!)).not.toBe(0)
      }),
    )
  })
})

test('without a peer there is no client', () => {
  expect(find([PROXY], undefined, '203.0.113.1')).toBe(undefined)
})

/** The worst case: every hop is trusted. The farthest hop that is read is then the client. */
test('only a limited number of hops of a long header is read', () => {
  const hops = Array.from({ length: 900 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)
  expect(find(['10.0.0.0/8'], '10.255.0.1', hops.join(','))).toBe(hops.at(-32))
})

test('a header of commas or of spaces takes less than a millisecond', () => {
  for (const text of [',', ' ', ', ', '1,', '10.0.0.1,']) {
    const header = text.repeat(8_192 / text.length)
    const clients = new ClientIps(['10.0.0.0/8'], log)
    const started = process.cpuUsage()
    for (let i = 0; i < 200; i++) clients.clientIp('10.0.0.1', header)
    const { user, system } = process.cpuUsage(started)
    expect((user + system) / 1_000 / 200).toBeLessThan(1)
  }
})
