import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { Hono } from 'hono'
import type { AppContext, AppEnv } from '../http/env.ts'
import { isFresh } from '../http/fresh.ts'
import { noQuery } from '../http/params.ts'
import { respond, bytes as respondBytes } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'
import { Paced } from '../lib/paced.ts'

type Path = (name: string) => string

const ours: Path = name => `${import.meta.dirname}/../../${name}`
const own: Path = name => `${import.meta.dirname}/docs/${name}`
const swaggerUi: Path = name => createRequire(import.meta.url).resolve(`swagger-ui-dist/${name}`)

const SCRIPT = 'text/javascript; charset=utf-8'
const STYLE = 'text/css; charset=utf-8'

/** Everything that the page loads. No other file is served, whatever the path says. */
const ASSETS: [name: string, path: Path, type: string][] = [
  ['page.js', own, SCRIPT],
  ['page.css', own, STYLE],
  ['swagger-ui-bundle.js', swaggerUi, SCRIPT],
  ['swagger-ui.css', swaggerUi, STYLE],
]

/** The page runs only scripts of this server, calls only this server and can't be framed. Its icons are `data:` in its style. */
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
  bytes: Buffer<ArrayBuffer>
  packed: Buffer<ArrayBuffer>
  headers: Record<string, string>
}

type Load = () => Promise<File>

const pack = promisify(gzip)

/** Read once and kept, so that any number of slow readers share one copy. */
function fileOf(name: string, path: Path, type: string): Load {
  let file: Promise<File> | undefined
  async function read(): Promise<File> {
    const bytes = await readFile(path(name))
    // A weak tag (RFC 9110 8.8.3) is the same for both encodings, and a proxy that compresses keeps it.
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

/** Revalidated each time, so that the page and its files are always of one version. */
const HEADERS = {
  'Cache-Control': 'no-cache',
  Vary: 'Accept-Encoding',
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
}

const document = fileOf('openapi.yaml', ours, 'application/yaml')
const page = fileOf('page.html', own, 'text/html; charset=utf-8')
const assets = new Map(ASSETS.map(asset => [asset[0], fileOf(...asset)]))

/**
 * The API's document, and a page that shows it. A file is read, hashed and compressed when it is first requested: the page's
 * script alone is more than a megabyte. Hono's `serveStatic`, `etag` and `compress` would do so at each request.
 */
export const docs = new Hono<AppEnv>()
  .get('/openapi.yaml', noQuery, c => serve(c, document))
  .get('/docs', noQuery, c => serve(c, page, { 'Content-Security-Policy': POLICY }))
  .get('/docs/:asset', noQuery, c => {
    const asset = assets.get(c.req.param('asset'))
    if (!asset) throw new ApiError('not_found', 'there is no such file; /docs is the reference')
    return serve(c, asset)
  })

/** `gzip;q=0` means no (RFC 9110 12.4.2). */
const GZIP = /\bgzip\b(?! *; *q=0(\.0*)? *(,|$))/i

async function serve(c: AppContext, load: Load, more: Record<string, string> = {}): Promise<Response> {
  const { bytes, packed, headers } = await load()
  if (isFresh(c, headers.ETag!)) return respond(c, null, 304, { ...headers, ...more })
  return GZIP.test(c.req.header('accept-encoding') ?? '')
    ? respondFile(c, packed, { ...headers, ...more, 'Content-Encoding': 'gzip' })
    : respondFile(c, bytes, { ...headers, ...more })
}

/** Answers with more bytes than this wait for their turn. */
const LARGE = 64 * 1024
/**
 * One large file is sent per interval (ms). Node copies it to the system at once, and callers that read nothing could request
 * gigabytes a second.
 */
const largeFiles = new Paced(20)

async function respondFile(c: AppContext, bytes: Buffer<ArrayBuffer>, headers: Record<string, string>) {
  if (bytes.length > LARGE) await turn(c)
  return respondBytes(c, bytes, 200, headers)
}

/** Resolves at once when the client has left. */
function turn(c: AppContext): Promise<void> {
  return new Promise(resolve => {
    largeFiles.add(resolve)
    c.env?.outgoing?.once('close', () => {
      largeFiles.remove(resolve)
      resolve()
    })
  })
}
