import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import type { Option } from 'commander'
import { describe, expect, test } from 'vitest'
import type { AssayCommand } from '../cli/command.ts'
import { program } from '../cli/program.ts'

/** What holds for every page: its links lead somewhere, and its commands exist. */

const ROOT = join(import.meta.dirname, '..')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
/** CHANGELOG.md is history: it may name pages that are gone. */
const pages = globSync('{README.md,SECURITY.md,docs/**/*.md,faults/README.md}', { cwd: ROOT }).sort()
const withoutBlocks = (text: string) => text.replace(/^ *```.*?^ *```$/gms, '')

/** The anchors of a page, as GitHub makes them of its headings. */
const anchorsOf = (page: string) =>
  [...withoutBlocks(read(page)).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-'),
  )

const existing = new Set(globSync('**/*', { cwd: ROOT, exclude: ['node_modules'] }))

function brokenLinksOf(page: string): string[] {
  const links = [...withoutBlocks(read(page)).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link!)
  return links.filter(link => !/^https?:|^mailto:/.test(link) && !leadsSomewhere(page, link))
}

function leadsSomewhere(page: string, link: string): boolean {
  const [path = '', anchor] = link.split('#')
  const target = path === '' ? page : normalize(join(dirname(page), path)).replace(/\/$/, '')
  if (!existing.has(target)) return false
  return anchor === undefined || !target.endsWith('.md') || anchorsOf(target).includes(anchor)
}

test('pages are found, and a broken link would be', () => {
  expect(pages.length).toBeGreaterThan(20)
  expect(leadsSomewhere('README.md', 'docs/operating.md#restore')).toBe(true)
  expect(leadsSomewhere('README.md', 'docs/operating.md#nothing')).toBe(false)
  expect(leadsSomewhere('docs/operating.md', 'nothing.md')).toBe(false)
})

test.each(pages)('every link of %s leads to a page, and to a heading there', page => {
  expect(brokenLinksOf(page)).toEqual([])
})

test('every page that code, configuration or another text names exists', () => {
  const sources = globSync('{server,cli,db,deploy,test}/**/*.{ts,yaml,json,mjs,conf,service}', { cwd: ROOT })
  const named = [...sources, 'openapi.yaml', 'compose.yaml', 'Dockerfile'].flatMap(file =>
    [...read(file).matchAll(/\bdocs\/[\w/.-]+\.md(?:#[\w-]+)?/g)].map(([link]) => `${file}: ${link}`),
  )
  expect(named.length).toBeGreaterThan(30)
  const missing = named.filter(line => !leadsSomewhere('README.md', line.split(': ')[1]!))
  expect(missing.filter(line => !line.startsWith('test/docs.test.ts'))).toEqual([])
})

/** The lines of a page's shell blocks that call the command line, as lists of words. */
const callsIn = (page: string) =>
  [...read(page).matchAll(/^ *```sh\n(.*?)^ *```$/gms)]
    .flatMap(([, block]) => block!.split('\n'))
    .flatMap(line => [...line.matchAll(/(?:^\s*|\$\()(?:npm run -?s? ?assay -- |assay )([a-z][^|)<>#;]*)/g)])
    .map(([, words]) => words!.trim().split(/\s+/))

/** What is wrong with a call, if anything. */
function problemOf(words: string[]): string | undefined {
  let command: AssayCommand = program
  const rest = [...words]
  while (command.commands.length > 0) {
    const next = (command.commands as AssayCommand[]).find(one => one.name() === rest[0])
    if (next === undefined) return `${words.join(' ')}: there is no command ${rest[0]}`
    command = next
    rest.shift()
  }
  const known = command.options.map(({ long }: Option) => long)
  const unknown = rest.filter(word => word.startsWith('--') && !known.includes(word))
  return unknown.length > 0 ? `${words.join(' ')}: there is no ${unknown[0]}` : undefined
}

describe('the commands that pages show', () => {
  test('are found, and a wrong one would be', () => {
    expect(callsIn('docs/operating.md').length).toBeGreaterThan(12)
    expect(problemOf(['customers', 'lst'])).toMatch('no command lst')
    expect(problemOf(['customers', 'list', '--nothing'])).toMatch('no --nothing')
  })

  test.each(pages.filter(page => page !== 'docs/cli.md'))('of %s exist, with their options', page => {
    expect(callsIn(page).map(problemOf).filter(Boolean)).toEqual([])
  })
})
