import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { ApiError, PayloadTooLargeError } from '../lib/errors.ts'
import type { Call } from './call.ts'
import { onePerName } from './params.ts'
import { check } from './validate.ts'

/** Bytes of a body. */
export const BODY_LIMIT = 16 * 1024
export const BATCH_LIMIT = 1024 * 1024

/** All of it. Throws TooLarge at the first byte over the limit, `invalid_request` where it doesn't arrive whole. */
function readBytes(incoming: IncomingMessage, limit: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    if (Number(incoming.headers['content-length']) > limit) return reject(new PayloadTooLargeError(limit))
    const chunks: Buffer[] = []
    let size = 0
    const broken = () => reject(new ApiError('invalid_request', 'the body did not arrive whole'))
    // Its client left while something else was waited for: no event will come any more.
    if (incoming.destroyed) return broken()
    incoming.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > limit) reject(new PayloadTooLargeError(limit))
      else chunks.push(chunk)
    })
    incoming.once('end', () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
    incoming.once('error', broken)
    incoming.once('close', () => incoming.readableEnded || broken())
  })
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

async function readText(call: Call, limit: number): Promise<string> {
  const bytes = await readBytes(call.incoming, limit)
  try {
    return utf8.decode(bytes)
  } catch {
    throw new ApiError('invalid_request', 'the body is not UTF-8')
  }
}

export const mediaType = (call: Call) => call.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase()

/** A form's parameters. */
export async function readForm(call: Call): Promise<Map<string, string>> {
  if (mediaType(call) !== 'application/x-www-form-urlencoded')
    throw new ApiError('invalid_request', 'send a form: Content-Type: application/x-www-form-urlencoded')
  return onePerName(new URLSearchParams(await readText(call, BODY_LIMIT)))
}

/** The body, which the schema says all about. */
export async function readJson<Schema extends z.ZodType>(
  call: Call,
  schema: Schema,
  limit = BODY_LIMIT,
): Promise<z.infer<Schema>> {
  if (mediaType(call) !== 'application/json')
    throw new ApiError('invalid_request', 'send JSON: Content-Type: application/json')
  return check(schema, parseJson(await readText(call, limit)))
}

/** Where neither one of the names nor an escape is, no member can have one of them: most bodies are spared the look. */
const PERHAPS_INHERITED = /\\|__proto__|constructor|prototype/

function parseJson(text: string): unknown {
  try {
    return PERHAPS_INHERITED.test(text) ? JSON.parse(text, refuseInherited) : JSON.parse(text)
  } catch (error) {
    throw error instanceof ApiError ? error : new ApiError('invalid_request', 'the body is not JSON')
  }
}

/** Names that reach what every object inherits, where code of anyone's assigns by name. */
function refuseInherited(name: string, value: unknown) {
  if (name === '__proto__' || name === 'constructor' || name === 'prototype')
    throw new ApiError(
      'invalid_request',
      'a member of the body may not be called __proto__, constructor or prototype',
    )
  return value
}
