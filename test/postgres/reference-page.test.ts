import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Chromium, findChromium, type Page, startChromium } from '../support/chromium.ts'
import { METHODS, membersAt } from '../support/openapi.ts'
import { makeWorld, type Replica, type World } from '../support/world.ts'

/** The operations by the ids that the page gives them. */
const operations = Object.keys(membersAt('paths')).flatMap(path =>
  METHODS.map(method => membersAt('paths', path, method))
    .filter(({ operationId }) => operationId !== undefined)
    .map(({ tags, operationId }) => `operations-${[tags].flat()[0]}-${operationId}`),
)

const SHOWN = `document.querySelectorAll('.opblock').length === ${operations.length}`

describe.skipIf(!findChromium())('GET /docs in Chromium (skipped where there is none)', () => {
  let world: World
  let server: Awaited<ReturnType<Replica['serveUntilStopped']>>
  let chromium: Chromium
  let url: string
  /** Loaded once, with a link to one operation; the others are opened in it. */
  let page: Page

  beforeAll(async () => {
    world = await makeWorld()
    server = await (await world.replica()).serveUntilStopped()
    url = server.url
    chromium = await startChromium()
    page = await chromium.open(`${url}/docs#/tokens/issue`, 1280, SHOWN)
  })
  afterAll(async () => {
    await chromium?.stop()
    await server?.stop()
    await world?.stop()
  })

  /** Opens an operation as a reader does. */
  async function open(operation: string) {
    const block = `document.getElementById('operations-${operation.replace('/', '-')}')`
    await page.evaluate(
      `${block}.matches('.is-open') || ${block}.querySelector('.opblock-summary-control').click()`,
    )
    await page.until(`!!${block}.querySelector('.responses-table')`)
  }

  test('a link opens its operation', async () => {
    await page.until(`!!document.querySelector('#operations-tokens-issue .responses-table')`)
  })

  test('shows every operation', async () => {
    const ids = await page.evaluate(`[...document.querySelectorAll('.opblock')].map(each => each.id)`)
    expect(ids.sort()).toEqual(operations.toSorted())
  })

  test('the operations that are needed first come first, then the customer, then operators', async () => {
    const found = `[...document.querySelectorAll('.opblock')].map(each => each.id)`
    const ids: string[] = await page.evaluate(found)
    expect(ids.slice(0, 10).map(id => id.split('-')[2])).toEqual([
      ...['verify', 'verifyPath', 'issue', 'refresh', 'introspect', 'introspectSelf'],
      ...['introspectBatch', 'explain', 'revoke', 'token'],
    ])
    const tags = ids.map(id => id.replace(/^operations-(.*)-\w+$/, '$1'))
    expect([...new Set(tags)]).toEqual([
      ...['verify', 'tokens', 'sessions', 'account', 'keys', 'secrets', 'audit', 'operators'],
      ...['discovery', 'operations', 'verify-methods'],
    ])
  })

  test('a search shows the operations that have all its words, and an empty one shows all again', async () => {
    const search = async (words: string) => {
      await page.evaluate(`{
        const field = document.getElementById('search')
        field.value = ${JSON.stringify(words)}
        field.dispatchEvent(new Event('input'))
      }`)
      const shown = `document.querySelectorAll('.opblock').length`
      const count = await page.evaluate(`document.querySelector('output').value`)
      await page.until(count === '' ? SHOWN : `${shown} === ${Number.parseInt(count, 10)}`)
      return {
        count,
        ids: await page.evaluate(`[...document.querySelectorAll('.opblock')].map(each => each.id)`),
      }
    }
    expect(await search('  OVERLAP rotate ')).toMatchObject({
      ids: expect.arrayContaining(['operations-operators-adminRotateService']),
    })
    expect(await search('/admin/audit wait')).toEqual({
      count: '1 found',
      ids: ['operations-operators-adminListEvents'],
    })
    expect(await search('no such word')).toEqual({ count: '0 found', ids: [] })
    expect((await search('')).ids).toHaveLength(operations.length)
  })

  test('its policy blocks nothing in it, and it sends requests to this server only', async () => {
    await open('tokens/issue')
    expect(page.complaints()).toEqual([])
    const asked = page.asked().filter(each => !each.startsWith('data:'))
    expect(asked.length).toBeGreaterThan(5)
    expect(asked.filter(each => !each.startsWith(`${url}/`))).toEqual([])
  })

  test.each([1280, 390])('an open operation is no wider than a screen of %i pixels', async width => {
    await open('verify/verify')
    await page.resize(width)
    expect(await page.evaluate('window.innerWidth')).toBe(width)
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width)
  })

  test('the parameters of a path are shown with each of its operations', async () => {
    await open('verify-methods/verifyPut')
    const names = await page.evaluate(
      `[...document.querySelectorAll('#operations-verify-methods-verifyPut [data-param-name]')].map(each => each.dataset.paramName)`,
    )
    expect(names).toEqual(['scope', 'scope_any', 'aud', 'customer', 'X-Assay-Require', 'X-Consistency'])
  })

  test('every error of an operation is listed by its code, and form examples as they are sent', async () => {
    await open('tokens/token')
    const block = `document.getElementById('operations-tokens-token')`
    const offered = await page.evaluate(`[...${block}.querySelectorAll('option')].map(each => each.value)`)
    const codes = ['invalid_request', 'invalid_grant', 'invalid_scope', 'unauthorized_client']
    expect(offered).toEqual(expect.arrayContaining([...codes, 'unsupported_grant_type', 'invalid_target']))
    expect(await page.evaluate(`${block}.innerText`)).toContain(
      'grant_type=client_credentials&scope=orders%3Aread',
    )
  })

  test('no credential can be typed into it, and no request can be sent', async () => {
    await open('tokens/introspect')
    await page.evaluate(`document.querySelector('#operations-tokens-introspect .credentials').click()`)
    const dialog = await page.evaluate(`document.querySelector('.dialog-ux').innerText`)
    for (const scheme of ['apiKey', 'basicClient', 'service']) expect(dialog).toContain(scheme)
    expect(dialog).not.toContain('operatorToken')
    const fields = `document.querySelectorAll('input:not(#search), textarea, .try-out, .execute, .modal-btn').length`
    expect(await page.evaluate(fields)).toBe(0)
  })
})
