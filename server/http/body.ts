import type { IncomingMessage } from 'node:http'
import type { z } from 'zod'
import { ApiError, PayloadTooLargeError } from '../lib/errors.ts'
import type { AppContext } from './env.ts'
import { uniqueParams } from './params.ts'
import { check } from './validate.ts'

/** Bytes of a body. */
export const BODY_LIMIT = 16 * 1024
export const BATCH_LIMIT = 1024 * 1024

/**
 * The whole body. Throws PayloadTooLargeError at the first byte over the limit, `invalid_request` where it doesn't arrive
 * whole. Read from Node's request: Hono's `bodyLimit` and `c.req.text()` would make a web stream of each body.
 */
function readBytes(incoming: IncomingMessage, limit: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    if (Number(incoming.headers['content-length']) > limit) return reject(new PayloadTooLargeError(limit))
    const chunks: Buffer[] = []
    let size = 0
    const broken = () => reject(new ApiError('invalid_request', 'the body did not arrive whole'))
    // The client left while something else was waited for: no event will come any more.
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

async function readText(c: AppContext, limit: number): Promise<string> {
  const incoming = c.env?.incoming
  const bytes = incoming ? await readBytes(incoming, limit) : new Uint8Array()
  try {
    return utf8.decode(bytes)
  } catch {
    throw new ApiError('invalid_request', 'the body is not UTF-8')
  }
}

export const mediaType = (c: AppContext) =>
  c.req.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase()

/** A form's parameters, as `uniqueParams` has them. */
export async function readForm(
  c: AppContext,
  repeatable?: ReadonlySet<string>,
): Promise<Map<string, string>> {
  if (mediaType(c) !== 'application/x-www-form-urlencoded')
    throw new ApiError('invalid_request', 'send a form: Content-Type: application/x-www-form-urlencoded')
  return uniqueParams(new URLSearchParams(await readText(c, BODY_LIMIT)), repeatable)
}

/** A JSON body, validated by the schema. Throws `invalid_request`. */
export async function readJson<Schema extends z.ZodType>(
  c: AppContext,
  schema: Schema,
  limit = BODY_LIMIT,
): Promise<z.infer<Schema>> {
  if (mediaType(c) !== 'application/json')
    throw new ApiError('invalid_request', 'send JSON: Content-Type: application/json')
  return check(schema, parseJson(await readText(c, limit)))
}

/** A body without any of these can have no member of those names, so most bodies are parsed without a reviver. */
const PERHAPS_INHERITED = /\\|__proto__|constructor|prototype/

function parseJson(text: string): unknown {
  try {
    return PERHAPS_INHERITED.test(text) ? JSON.parse(text, refuseInherited) : JSON.parse(text)
  } catch (error) {
    throw error instanceof ApiError ? error : new ApiError('invalid_request', 'the body is not JSON')
  }
}

/** Refuses names that reach what every object inherits. */
function refuseInherited(name: string, value: unknown) {
  if (name === '__proto__' || name === 'constructor' || name === 'prototype')
    throw new ApiError(
      'invalid_request',
      'a member of the body may not be called __proto__, constructor or prototype',
    )
  return value
}
