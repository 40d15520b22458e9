import { posix } from 'node:path'

/** Paths that a gateway and its backend may read differently. */

/** Sequences that a backend may read as a slash or ignore. */
const SEPARATORS = [
  ...['/', '//', '///', '/./', '/%2e/', '/.%2F', '%2f', '%2F/', '%252f', '%25%32%66', '%c0%af', '%u002f'],
  ...['\\', '/\\', '%5c', '%5C/', '%255c', '%c1%9c', '%00/', '%09/', '%0a/', '%0d%0a/', '%20/', '\t/', '\0/'],
  ...[';/', ';x/', ';x=y/', ';%2f', '/;/', '/;x/', '%3b/', '%3Bx/', '%253b/', '%253Bx/', '%25%33%62/', ';;/'],
  ...['#/', '%23/', '%2523/', '?/', '%3f/', '%253f/', '%/', '%2/', '%zz/'],
]

const UP = ['..', '.%2e', '%2E%2e', '%252e%252e', '%25%32%65.', '%c0%ae%c0%ae', '..%00', '..%20', '...']

const PATHS = [
  ...SEPARATORS.flatMap(separator => [
    `/${separator}reports/x`,
    `/reports${separator}x`,
    `/public${separator}reports/x`,
    `/public${separator}../reports/x`,
    `/reports${separator}../public/x`,
    `/public/x${separator}../../reports/x`,
    `//public${separator}reports/x`,
    `/public/x${separator}`,
    ...UP.flatMap(up => [`/public/${up}${separator}reports/x`, `/reports/${up}${separator}public/x`]),
  ]),
  ...[
    '/%72eports/x',
    '/%70ublic/x',
    '/REPORTS/x',
    '/Reports',
    '/PUBLIC/x',
    '/Public/x',
    '/public',
    '/reports',
    '/public/..',
    '/public/.',
    '/x/..',
  ],
  ...['/reports.json', '/reports%2ejson', '/reports%2Ejson', '/REPORTS.xml', '/Reports.json/x'],
  // Letters that fold to s, k and i in case-insensitive comparisons.
  ...[
    '/report%C5%BF',
    '/report%C5%BF/x',
    '/report%c5%bF/x',
    '/report\u017f/x',
    '/public/x/../report\u017f/x',
    '/boo%E2%84%AAs/x',
    '/boo\u212as/x',
    '/adm%C4%B0n/x',
    '/adm%C4%B1n/x',
    '/publ%C4%B1c/x',
    '/publ\u0131c/x',
  ],
  ...[
    '/public/..;',
    '/public/%2e%2e;x',
    '/reports;',
    '/reports;x=y',
    '/;/reports/x',
    '/reports;x',
    '/reports%3b',
  ],
]

/** Absolute URLs whose authority ends early for some URL parsers: at `?`, `#` or `\\`. */
const EARLY_ENDS = ['?', '#', '\\', '%3f', '%23', '%5c'].flatMap(end => [
  `http://x${end}@gateway.test/public/x`,
  `http://x${end}reports@gateway.test/public/x`,
  `http://x${end}/reports@gateway.test/public/x`,
  `http://gateway.test${end}/public/x`,
  `http://gateway.test${end}/public/x?y=z`,
  `http://[::1]${end}/public/x`,
])

/** Request targets in origin-form and in absolute-form (RFC 9112 3.2). */
export const TARGETS = [
  ...PATHS,
  ...PATHS.map(path => `http://gateway.test${path}`),
  ...[
    'http://public/../reports/x',
    'http://gateway.test',
    'http://a;b@gateway.test/reports/x',
    'reports/x',
    '*',
  ],
  ...EARLY_ENDS,
]

/** Targets with a semicolon in the path, encoded or not. */
export const WITH_PARAMETERS = TARGETS.filter(target => {
  const path = pathIn(target)
  return path.startsWith('/') && /;|%3b/i.test(path)
})

/** One target of each kind. */
export const AMBIGUOUS = [
  ...[
    '//public/x',
    '/public//x',
    '/public/./x',
    '/public/../public/x',
    '/public/%2e/x',
    '/public/.%2E/x',
    '/public/..',
  ],
  ...[
    '/public/x\\y',
    '/public/x%5cy',
    '/public/x;y',
    '/public/x%3by',
    '/public/x#y',
    '/public/x%2fy',
    '/public/x%00',
  ],
  ...['/public/x%252fy', '/public/x%25%32%66y', '/public/%252e%252e/x', '/public/x%253By'],
  ...[
    '/public/%C5%BF',
    '/public/boo%E2%84%AAs',
    '/public/boo%e2%84%aas',
    '/public/adm%C4%B0n',
    '/public/adm%c4%b1n',
  ],
  ...['%01', '%09', '%0a', '%0D', '%1b', '%1F', '%7f', '%7F'].flatMap(control => [
    `/public/x${control}y`,
    `/public/.${control}./reports`,
  ]),
]

/** Unencoded letters that fold to ASCII. Some gateways refuse all unencoded characters beyond ASCII. */
export const RAW_FOLDING = [
  '/public/\u017f',
  '/public/boo\u212as',
  '/public/adm\u0130n',
  '/public/adm\u0131n',
]

export const UNAMBIGUOUS = [
  ...[
    '/public/',
    '/public/a%20b/%C3%BC',
    '/public/%E2%84%A2/%C4%B2/%C5%BE/%E2%84%AB',
    '/public/100%25',
    '/public/100%25%20off',
    '/public/C%23',
    '/public/a%3Fb',
  ],
  ...["/public/a:b,c=d&e+f@g!$'()*", '/public/~ann/.x/..y/z../a..b', '/public/x?a=//b/../c;d%5c%2f%00%253b'],
]

/** How various backends read the path of a request target. */
export const READINGS: Record<string, (target: string) => string> = {
  'as it stands': target => unreserved(pathIn(target)),
  decoded: target => decode(pathIn(target)),
  resolved: target => resolve(unreserved(pathIn(target))),
  'decoded, then resolved': target => resolve(decode(pathIn(target))),
  'decoded twice, then resolved': target => resolve(decode(decode(pathIn(target)))),
  'with a backslash for a slash': target => resolve(decode(pathIn(target)).replaceAll('\\', '/')),
  'as Tomcat does, without parameters': target => resolve(decode(withoutParameters(pathIn(target)))),
  'decoded, without parameters': target => resolve(withoutParameters(decode(pathIn(target)))),
  'decoded twice, without parameters': target => resolve(withoutParameters(decode(decode(pathIn(target))))),
  'without regard to case': target => resolve(decode(pathIn(target))).toLowerCase(),
  'with Unicode case folding': target => fold(resolve(decode(pathIn(target)))),
  'without control characters': target => resolve(decode(pathIn(target)).replace(CONTROLS, '')),
  'as a URL': target => parseUrl(target),
  'up to #': target => resolve(decode(pathIn(target).replace(/#.*$/s, ''))),
  'up to NUL': target => resolve(decode(pathIn(target)).replace(/\0.*$/s, '')),
}

/** The path without scheme, host and query. Nothing is decoded. */
export function pathIn(target: string): string {
  return target.replace(/^https?:\/\/[^/?#]*/i, '').replace(/\?.*$/s, '')
}

/** Decodes only characters that mean the same encoded and decoded (RFC 3986 6.2.2.2). */
const unreserved = (path: string) =>
  path.replace(/%(2[de]|3\d|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])/gi, encoded => decodeURIComponent(encoded))

/** Leaves undecodable sequences unchanged, as many backends do. */
const decode = (path: string) =>
  path.replace(/(%[0-9a-f]{2})+/gi, encoded => {
    try {
      return decodeURIComponent(encoded)
    } catch {
      return Buffer.from(encoded.replaceAll('%', ''), 'hex').toString('latin1')
    }
  })

/** Simple case folding; the Turkish letters compare as in Python and Java. */
const fold = (path: string) =>
  Buffer.from(path, isBytes(path) ? 'latin1' : 'utf8')
    .toString()
    .replace(/[\u0130\u0131]/g, 'i')
    .replaceAll('\u017f', 's')
    .replaceAll('\u212a', 'k')
    .toLowerCase()

/** Node passes each raw byte of a request target on as one character. */
const isBytes = (path: string) => !/[^\0-\xff]/.test(path)

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is removed.
const CONTROLS = /[\0-\x1f\x7f]/g

const withoutParameters = (path: string) => path.replace(/;[^/]*/g, '')

const resolve = (path: string) => posix.normalize(path).replace(/^\/+/, '/')

/** Parses it as `new URL(request.url, base)`, as many Node services do. */
function parseUrl(target: string): string {
  try {
    return unreserved(new URL(target, 'http://backend.test').pathname)
  } catch {
    return pathIn(target)
  }
}
