import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Chromium, findChromium, startChromium } from '../support/chromium.ts'
import { METHODS, membersAt } from '../support/openapi.ts'
import { makeWorld, type Replica, type World } from '../support/world.ts'

/** By the ids that the page gives them. */
const operations = Object.keys(membersAt('paths')).flatMap(path =>
  METHODS.map(method => membersAt('paths', path, method))
    .filter(({ operationId }) => operationId !== undefined)
    .map(({ tags, operationId }) => `operations-${[tags].flat()[0]}-${operationId}`),
)

const SHOWN = `document.querySelectorAll('.opblock').length === ${operations.length}`

describe.skipIf(!findChromium())('GET /docs in Chromium (skipped where there is none)', () => {
  let world: World
  let assay: Replica
  let chromium: Chromium
  let url: string

  beforeAll(async () => {
    world = await makeWorld()
    assay = await world.replica()
    chromium = await startChromium()
  })
  afterAll(async () => {
    await chromium?.stop()
    await world?.stop()
  })
  beforeEach(async () => {
    url = (await assay.serve()).url
  })

  /** The page with one operation open. */
  const openAt = (operation: string, width = 1280) =>
    chromium.open(`${url}/docs#/${operation}`, width, `!!document.querySelector('.responses-table')`)

  test('shows every operation', async () => {
    const page = await chromium.open(`${url}/docs`, 1280, SHOWN)
    const ids = await page.evaluate(`[...document.querySelectorAll('.opblock')].map(each => each.id)`)
    expect(ids.sort()).toEqual(operations.toSorted())
  })

  test('nothing in it is refused by its policy, and it asks this server alone', async () => {
    const page = await openAt('tokens/issue')
    expect(page.complaints()).toEqual([])
    const asked = page.asked().filter(each => !each.startsWith('data:'))
    expect(asked.length).toBeGreaterThan(5)
    expect(asked.filter(each => !each.startsWith(`${url}/`))).toEqual([])
  })

  test.each([1280, 390])('an open operation is no wider than a screen of %i pixels', async width => {
    const page = await openAt('verify/verify', width)
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width)
  })

  test('the parameters of a path are shown with each of its operations', async () => {
    const page = await openAt('verify/verifyPut')
    const names = await page.evaluate(
      `[...document.querySelectorAll('[data-param-name]')].map(each => each.dataset.paramName)`,
    )
    expect(names).toEqual(['scope', 'scope_any', 'aud', 'customer', 'X-Assay-Require', 'X-Consistency'])
  })

  test('every error of an operation is there by its code, and the examples of a form as they are sent', async () => {
    const page = await openAt('tokens/token')
    const offered = await page.evaluate(`[...document.querySelectorAll('option')].map(each => each.value)`)
    const codes = ['invalid_request', 'invalid_grant', 'invalid_scope', 'unauthorized_client']
    expect(offered).toEqual(expect.arrayContaining([...codes, 'unsupported_grant_type']))
    expect(await page.evaluate('document.body.innerText')).toContain(
      'grant_type=client_credentials&scope=orders%3Aread',
    )
  })

  test('no credential can be typed into it, and no call be sent', async () => {
    const page = await openAt('introspection/introspect')
    await page.evaluate(`document.querySelector('.opblock.is-open .credentials').click()`)
    const dialog = await page.evaluate(`document.querySelector('.dialog-ux').innerText`)
    for (const scheme of ['apiKey', 'basicClient', 'resourceServer']) expect(dialog).toContain(scheme)
    expect(dialog).not.toContain('operatorToken')
    const fields = `document.querySelectorAll('input, textarea, .try-out, .execute, .modal-btn').length`
    expect(await page.evaluate(fields)).toBe(0)
  })
})
