import { join } from 'node:path'
import { lint, loadConfig } from '@redocly/openapi-core'
import { expect, test } from 'vitest'

const file = (name: string) => join(import.meta.dirname, '..', name)

/** The strict rules of the Redocly CLI; .redocly.lint-ignore.yaml lists the exceptions with their reasons. */
test('a public linter finds neither error nor warning in openapi.yaml', async () => {
  const config = await loadConfig({ configPath: file('redocly.yaml') })
  const found = await lint({ ref: file('openapi.yaml'), config })
  const problems = found.filter(({ ignored }) => !ignored)
  expect(
    problems.map(({ ruleId, message, location }) => `${ruleId}: ${message} (${location[0]?.pointer})`),
  ).toEqual([])
})
