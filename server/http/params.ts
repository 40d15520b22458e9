import { IncomingMessage } from 'node:http'
import { z } from 'zod'
import { OAuthError, TooLarge } from '../errors.ts'
import type { Ctx } from './context.ts'

/** Bytes of a body. They are counted as they arrive, but for node:http, which holds a client to the length that it announced. */
export const BODY_LIMIT = 16 * 1024
export const BATCH_LIMIT = 1024 * 1024

async function readText(c: Ctx, limit: number): Promise<string> {
  const announced = c.req.header('content-length')
  if (Number(announced) > limit) throw new TooLarge(limit)
  try {
    const chunked = c.req.header('transfer-encoding') !== undefined
    const held = announced !== undefined && !chunked && c.env?.incoming instanceof IncomingMessage
    return decode(held ? await c.req.arrayBuffer() : await readChunks(c, limit))
  } catch (error) {
    throw error instanceof OAuthError
      ? error
      : new OAuthError('invalid_request', 'the body did not arrive whole')
  }
}

async function readChunks(c: Ctx, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of c.req.raw.body ?? []) {
    size += chunk.length
    if (size > limit) throw new TooLarge(limit)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function decode(bytes: Uint8Array | ArrayBuffer): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw new OAuthError('invalid_request', 'the body is not UTF-8')
  }
}

export const mediaType = (c: Ctx) => c.req.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase()

/** A form's parameters. Empty ones are absent; a repeated one is refused (RFC 6749 3.2). */
export async function readForm(c: Ctx): Promise<Map<string, string>> {
  if (mediaType(c) !== 'application/x-www-form-urlencoded')
    throw new OAuthError('invalid_request', 'send a form: Content-Type: application/x-www-form-urlencoded')
  return onePerName(new URLSearchParams(await readText(c, BODY_LIMIT)))
}

export function onePerName(params: URLSearchParams): Map<string, string> {
  const found = new Map<string, string>()
  for (const [name, value] of params) {
    if (value === '') continue
    if (/\p{Cc}/u.test(value)) throw new OAuthError('invalid_request', 'a parameter has control characters')
    if (found.has(name)) throw new OAuthError('invalid_request', 'a parameter is repeated; send each once')
    found.set(name, value)
  }
  return found
}

/** The body, which the schema says all about. */
export async function readJson<Schema extends z.ZodType>(
  c: Ctx,
  schema: Schema,
  limit = BODY_LIMIT,
): Promise<z.infer<Schema>> {
  if (mediaType(c) !== 'application/json')
    throw new OAuthError('invalid_request', 'send JSON: Content-Type: application/json')
  return check(schema, parseJson(await readText(c, limit)))
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text, refuseInherited)
  } catch (error) {
    throw error instanceof OAuthError ? error : new OAuthError('invalid_request', 'the body is not JSON')
  }
}

/** Names that reach what every object inherits, where code of anyone's assigns by name. */
function refuseInherited(name: string, value: unknown) {
  if (name === '__proto__' || name === 'constructor' || name === 'prototype')
    throw new OAuthError(
      'invalid_request',
      'a member of the body may not be called __proto__, constructor or prototype',
    )
  return value
}

/** Throws `invalid_request` that names the member and what it should be, never what it was. */
export function check<Schema extends z.ZodType>(schema: Schema, value: unknown): z.infer<Schema> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  const place = issue.path.filter(part => typeof part !== 'symbol').join('.')
  throw new OAuthError(
    'invalid_request',
    printable(place ? `${place}: ${messageOf(issue, schema)}` : messageOf(issue, schema)),
  )
}

/** Ours where the schema has one; zod's own words would say what came, and in its own terms. */
function messageOf(issue: z.core.$ZodIssue, schema: z.ZodType): string {
  if (issue.code === 'unrecognized_keys')
    return schema instanceof z.ZodObject
      ? `only these may stand in the body: ${Object.keys(schema.shape).join(', ')}`
      : 'it has a member that is not known here'
  if (!/^(Invalid input|Too small|Too big)/.test(issue.message)) return issue.message
  if (issue.message.endsWith('received undefined')) return 'is missing'
  if (issue.code === 'too_small') return issue.origin === 'string' ? 'is empty' : `at least ${issue.minimum}`
  if (issue.code === 'too_big')
    return `at most ${issue.maximum}${issue.origin === 'string' ? ' characters' : ''}`
  return issue.code === 'invalid_type' ? `must be ${KINDS[issue.expected] ?? issue.expected}` : issue.message
}

const KINDS: Record<string, string> = {
  string: 'a string',
  int: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a JSON object',
  record: 'a JSON object',
}

/** RFC 6749 5.2: visible ASCII and space, without quote and backslash. */
const printable = (text: string) =>
  text
    .replaceAll('"', "'")
    .replace(/[^\x20-\x5b\x5d-\x7e]/g, '?')
    .slice(0, 200)

/** The position after the last row of a page: opaque to its reader. */
const encodeCursor = (at: Date, id: string | number) =>
  Buffer.from(`${at.getTime()} ${id}`).toString('base64url')

export function decodeCursor(text: string | undefined): { at: Date; id: string } | undefined {
  if (text === undefined) return undefined
  const [, time, id] = /^(\d{1,13}) ([\w-]{1,64})$/.exec(Buffer.from(text, 'base64url').toString()) ?? []
  if (time === undefined || id === undefined)
    throw new OAuthError('invalid_request', 'cursor: send next_cursor of the page before, or leave it out')
  return { at: new Date(Number(time)), id }
}

/** The query's parameters, of which only `names` are known. */
export function readQuery<Name extends string>(c: Ctx, names: readonly Name[]): { [name in Name]?: string } {
  const query = onePerName(new URL(c.req.url).searchParams)
  for (const name of query.keys())
    if (!(names as readonly string[]).includes(name))
      throw new OAuthError('invalid_request', `only these may stand in the query: ${names.join(', ')}`)
  return Object.fromEntries(query) as { [name in Name]?: string }
}

export function pageSize(text: string | undefined): number {
  const size = Number(text ?? 50)
  if (!/^\d{1,3}$/.test(text ?? '50') || size < 1 || size > 100)
    throw new OAuthError('invalid_request', 'limit: a whole number from 1 to 100')
  return size
}

/** Leaves out what is undefined or null: no answer has a null in it. */
export function present<Members extends object>(
  members: Members,
): { [K in keyof Members]?: NonNullable<Members[K]> } {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined && value !== null),
  ) as never
}

/** Ours have only these characters; what has others is not there, and never asked for. */
export function idOf(c: Ctx): string {
  const id = c.req.param('id') ?? ''
  if (!/^[a-z2-7]{24,32}$/.test(id)) throw new OAuthError('not_found', 'nothing has this id')
  return id
}

/** Of `limit + 1` rows asked for, those of the page, and the cursor behind the last if there are more. */
export function pageOf<Row extends { id: string | number }>(
  rows: Row[],
  limit: number,
  at: (row: Row) => Date,
) {
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  return { page, nextCursor: last && rows.length > limit ? encodeCursor(at(last), last.id) : undefined }
}
