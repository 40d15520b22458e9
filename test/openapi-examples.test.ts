import { globSync, readFileSync } from 'node:fs'
import { STATUS_CODES } from 'node:http'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  document,
  isObject,
  type Json,
  type JsonObject,
  locate,
  METHODS,
  membersAt,
  type Pointer,
} from './support/openapi.ts'

/** The examples of the reference are real requests and answers. openapi-document.test.ts checks them against their schemas. */

interface Body {
  name: string
  /** The media type. */
  pointer: Pointer
}

const operations = Object.keys(membersAt('paths')).flatMap(path =>
  METHODS.filter(method => membersAt('paths', path)[method]).map(method => ({
    name: `${method.toUpperCase()} ${path}`,
    pointer: ['paths', path, method],
  })),
)

const bodiesAt = (name: string, pointer: Pointer): Body[] =>
  Object.keys(membersAt(...pointer, 'content')).map(type => ({
    name: `${name} ${type}`,
    pointer: [...pointer, 'content', type],
  }))

const requests = operations.flatMap(({ name, pointer }) => bodiesAt(name, [...pointer, 'requestBody']))

const answersOf = (wanted: (status: number) => boolean) =>
  operations.flatMap(({ name, pointer }) =>
    Object.keys(membersAt(...pointer, 'responses'))
      .filter(status => wanted(Number(status)))
      .flatMap(status => bodiesAt(`${name} ${status}`, [...pointer, 'responses', status])),
  )

const successes = answersOf(status => status < 400)

/** Including those for a wrong method, which any path may give. */
const errors = [
  ...answersOf(status => status >= 400),
  ...bodiesAt('a wrong method', ['components', 'responses', 'MethodNotAllowed']),
].filter(({ pointer }) => codesOf(pointer).length > 0)

interface Example {
  /** Empty: it has no body. */
  name: string
  value: Json
}

function examplesAt(pointer: Pointer): Example[] {
  const { example } = membersAt(...pointer)
  const named = Object.entries(membersAt(...pointer, 'examples')).map(([name, each]) => ({
    name,
    value: isObject(each) ? (each.value ?? null) : null,
  }))
  return example === undefined ? named : [{ name: '', value: example }, ...named]
}

function errorOf(pointer: Pointer) {
  return membersAt(...pointer, 'schema', 'properties', 'error')
}

/** The error codes that the schema allows: its own, or those of its parts. */
function codesOf(pointer: Pointer): string[] {
  const schema = locate([...pointer, 'schema'])?.value
  const own = isObject(schema) && isObject(schema.properties) ? schema.properties.error : undefined
  const { const: one, enum: several } = isObject(own) ? own : errorOf(pointer)
  return [one ?? several ?? []].flat() as string[]
}

describe('an example', () => {
  test.each(requests)('shows the body of $name', ({ pointer }) => {
    expect(examplesAt(pointer)).not.toEqual([])
  })

  test.each(successes)('shows the answer $name', ({ pointer }) => {
    expect(examplesAt(pointer)).not.toEqual([])
  })

  // By its code; if one code has several reasons, by the code and a word: `conflict_keys`.
  test.each(errors)('shows each error of $name, under its name', ({ pointer }) => {
    const codes = codesOf(pointer)
    const examples = examplesAt(pointer)
    const shown = examples.map(({ value }) => (isObject(value) ? value.error : undefined))
    expect(new Set(shown)).toEqual(new Set(codes))
    for (const { name, value } of examples)
      expect(`${name}_`).toMatch(new RegExp(`^${isObject(value) ? value.error : 'an error'}_`))
  })

  test('exists for every error that has a body', () => {
    const bodies = answersOf(status => status >= 400).filter(({ pointer }) => codesOf(pointer).length === 0)
    expect(bodies.map(({ name }) => name)).toEqual(['GET /readyz 503 application/json'])
    expect(requests.length).toBeGreaterThan(10)
    expect(successes.length).toBeGreaterThan(20)
    expect(errors.length).toBeGreaterThan(150)
  })
})

const ROOT = join(import.meta.dirname, '..')

const withoutComments = (text: string) =>
  text.replace(/\/\*.*?\*\//gs, '').replace(/^\s*\/\/.*$|\s\/\/ .*$/gm, '')

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

/** Every string in the server's code as a pattern in which inserted values match anything. */
const texts = globSync('server/**/*.ts', { cwd: ROOT })
  .flatMap(
    file =>
      withoutComments(readFileSync(join(ROOT, file), 'utf8')).match(
        /'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g,
      ) ?? [],
  )
  .map(text => text.slice(1, -1).split(/\$\{[^}]*\}/))
  // A text of nearly only inserted values would match anything.
  .filter(parts => parts.join('').length >= 9)
  .map(parts => new RegExp(`^${parts.map(escaped).join('.+')}$`))

const shownErrors = errors
  .flatMap(({ pointer }) => examplesAt(pointer))
  .map(({ value }) => value as JsonObject)
  .map(({ detail, error_description, title, status }) => ({
    said: String(detail ?? error_description),
    title,
    status,
  }))

test.each([...new Map(shownErrors.map(each => [JSON.stringify(each), each])).values()])(
  'the text of an error is one of the server’s: $said',
  ({ said, title, status }) => {
    expect(texts.filter(text => text.test(said))).not.toEqual([])
    if (title !== undefined) expect(title).toBe(STATUS_CODES[Number(status)])
  },
)

test('no token or key in the document could be a live one', () => {
  const text = JSON.stringify(document)
  const keys = text.match(/assay_(ak|rs)_[A-Za-z0-9]{8,}\w*/g) ?? []
  expect(keys.length).toBeGreaterThan(1)
  expect(keys.filter(key => !/_(EXAMPLE|example)+1_000000$/.test(key))).toEqual([])
  const tokens = text.match(/\bey[\w-]+\.[\w-]+\.[\w-]+/g) ?? []
  expect(tokens.length).toBeGreaterThan(10)
  expect(tokens.filter(token => token.length > 40 || !token.endsWith('.c2lnbmF0dXJl'))).toEqual([])
})
