import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { Call, Reply, Routes } from '../http/call.ts'
import { respond } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'

/**
 * The API's document, and a page that shows it. Nothing is read before it is asked for: most servers are never asked, and
 * the page's script alone is more than a megabyte.
 */
export function referenceRoutes(): Routes {
  const document = fileOf('openapi.yaml', ours, 'application/yaml')
  const page = fileOf('page.html', own, 'text/html; charset=utf-8')
  const assets = new Map(ASSETS.map(asset => [asset[0], fileOf(...asset)]))
  return {
    'GET /openapi.yaml': call => serve(call, document),
    'GET /docs': call => serve(call, page, { 'Content-Security-Policy': POLICY }),
    'GET /docs/:asset': call => {
      const asset = assets.get(call.params.asset!)
      if (!asset) throw new ApiError('not_found', 'the reference has no such file')
      return serve(call, asset)
    },
  }
}

type Path = (name: string) => string

const ours: Path = name => `${import.meta.dirname}/../../${name}`
const own: Path = name => `${import.meta.dirname}/docs/${name}`
const swaggerUi: Path = name => createRequire(import.meta.url).resolve(`swagger-ui-dist/${name}`)

const SCRIPT = 'text/javascript; charset=utf-8'
const STYLE = 'text/css; charset=utf-8'

/** All that the page loads: what isn't here is not served, whatever the path says. */
const ASSETS: [name: string, path: Path, type: string][] = [
  ['page.js', own, SCRIPT],
  ['page.css', own, STYLE],
  ['swagger-ui-bundle.js', swaggerUi, SCRIPT],
  ['swagger-ui.css', swaggerUi, STYLE],
]

/** The page runs what this server sent it, asks only this server, and is nobody's frame. Its icons are `data:` in its style. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  'img-src data:',
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

interface File {
  bytes: Buffer
  packed: Buffer
  headers: Record<string, string>
}

type Load = () => Promise<File>

const pack = promisify(gzip)

/** Kept once it has been read, so that any number of slow readers share one copy. */
function fileOf(name: string, path: Path, type: string): Load {
  let file: Promise<File> | undefined
  async function read(): Promise<File> {
    const bytes = await readFile(path(name))
    // Weak (RFC 9110 8.8.3): the same for both encodings, and a proxy that packs leaves it as it is.
    const ETag = `W/"${hash('sha256', bytes, 'base64url')}"`
    return { bytes, packed: await pack(bytes), headers: { ...HEADERS, ETag, 'Content-Type': type } }
  }
  return () => {
    file ??= read().catch(error => {
      file = undefined
      throw error
    })
    return file
  }
}

/** Asked again each time, and answered 304 until the server is another: the page and its files are of one version. */
const HEADERS = {
  'Cache-Control': 'no-cache',
  Vary: 'Accept-Encoding',
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
}

/** `gzip;q=0` is a no (RFC 9110 12.4.2). */
const GZIP = /\bgzip\b(?! *; *q=0(\.0*)? *(,|$))/i

async function serve(call: Call, load: Load, more: Record<string, string> = {}): Promise<Reply> {
  const { bytes, packed, headers } = await load()
  if (has(call, headers.ETag!)) return { status: 304, headers: { ...headers, ...more }, body: '' }
  return GZIP.test(call.header('accept-encoding') ?? '')
    ? respond(packed, 200, { ...headers, ...more, 'Content-Encoding': 'gzip' })
    : respond(bytes, 200, { ...headers, ...more })
}

/** Who has it sends the tag as it was given (RFC 9110 13.1.2). */
function has(call: Call, tag: string): boolean {
  const tags = call
    .header('if-none-match')
    ?.split(',')
    .map(one => one.trim())
  return tags?.some(one => one === '*' || one === tag) ?? false
}
