import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ask } from '../support/ask.ts'
import { membersAt } from '../support/openapi.ts'
import { makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const ROOT = join(import.meta.dirname, '../..')

/** By name, as declared in the document. */
const ASSETS = membersAt('paths', '/docs/{asset}', 'parameters', '0', 'schema').enum as string[]
const FILES = ['/openapi.yaml', '/docs', ...ASSETS.map(name => `/docs/${name}`)]

const TYPES: Record<string, string> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
}

describe('GET /openapi.yaml', () => {
  test('is the document itself', async () => {
    const { text, headers } = await assay.get('/openapi.yaml')
    expect(text).toBe(readFileSync(join(ROOT, 'openapi.yaml'), 'utf8'))
    expect(headers.get('content-type')).toBe('application/yaml')
  })
})

describe('GET /docs', () => {
  test('is a page that runs only scripts of this server and cannot be framed', async () => {
    const { headers } = await assay.get('/docs')
    expect(headers.get('content-type')).toBe(TYPES.html)
    expect(headers.get('content-security-policy')?.split('; ')).toEqual([
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      'img-src data:',
      "connect-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ])
  })

  test('refers to its files by relative paths, and all of them exist', async () => {
    const { text } = await assay.get('/docs')
    const named = [...text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, url]) => url!)
    const files = named.filter(url => url !== 'data:,')
    expect(files.map(url => `/${url}`).sort()).toEqual(FILES.filter(path => path !== '/docs').sort())
    for (const url of files) expect((await assay.get(`/${url}`)).status).toBe(200)
  })

  test('has no inline script, style or handler, which its policy would block', async () => {
    const { text } = await assay.get('/docs')
    expect(text).not.toMatch(/<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:/i)
  })

  test('shows the document next to it, and can send no request', async () => {
    const { text } = await assay.get('/docs/page.js')
    expect(text).toMatch(/url: 'openapi\.yaml'/)
    expect(text).toMatch(/supportedSubmitMethods: \[\]/)
  })
})

describe.each(FILES)('%s', path => {
  test('is sent with its media type and its security headers', async () => {
    const { headers } = await assay.get(path)
    const ending = path === '/docs' ? 'html' : path.slice(path.lastIndexOf('.') + 1)
    expect(headers.get('content-type')).toBe(TYPES[ending] ?? 'application/yaml')
    expect(headers.get('x-content-type-options')).toBe('nosniff')
    expect(headers.get('referrer-policy')).toBe('no-referrer')
    expect(headers.get('cache-control')).toBe('no-cache')
  })

  test('is not sent again to a client that has it', async () => {
    const tag = (await assay.get(path)).headers.get('etag')!
    for (const known of [tag, `"other", ${tag}`, '*']) {
      const { status, text, headers } = await assay.get(path, undefined, { 'If-None-Match': known })
      expect([status, text, headers.get('etag')]).toEqual([304, '', tag])
    }
    expect((await assay.get(path, undefined, { 'If-None-Match': '"other"' })).status).toBe(200)
  })

  test('is compressed for clients that can decompress it', async () => {
    const plain = await assay.get(path, undefined, { 'Accept-Encoding': 'gzip;q=0, br' })
    expect(plain.headers.get('content-encoding')).toBeNull()
    const packed = await ask(assay.app, path, { headers: { 'Accept-Encoding': 'br, gzip' } })
    expect(packed.headers.get('content-encoding')).toBe('gzip')
    const bytes = Buffer.from(await packed.arrayBuffer())
    expect(packed.headers.get('content-length')).toBe(String(bytes.length))
    expect(gunzipSync(bytes).toString()).toBe(plain.text)
    for (const { headers } of [plain, packed]) expect(headers.get('vary')).toBe('Accept-Encoding')
  })
})

test('no other file is served, whatever the path', async () => {
  const others = [
    ...['..', '../openapi.yaml', '../package.json', '../../etc/passwd', 'swagger-ui.css/', '/swagger-ui.css'],
    ...['..%2fpackage.json', '..%2f..%2f..%2fpackage.json', '%2e%2e%2fopenapi.yaml', '%2fetc%2fpasswd'],
    ...['package.json', 'page.html', 'index.html', 'swagger-ui.js', 'swagger-ui-bundle.js.map', 'page.js%00'],
    ...['constructor', '__proto__', 'toString', '', 'Page.js'],
  ]
  for (const other of others)
    expect([other, (await assay.get(`/docs/${other}`)).status]).toEqual([other, 404])
})

test('the page’s files are installed without development dependencies', () => {
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  expect(Object.keys(dependencies)).toContain('swagger-ui-dist')
})
