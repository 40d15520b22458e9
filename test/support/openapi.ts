import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { parse } from 'yaml'

/** Checks every answer that a test gets against openapi.yaml, so that the document and the server stay in agreement. */

export type Json = null | boolean | number | string | Json[] | { [member: string]: Json }
export type JsonObject = { [member: string]: Json }

/** A location in the document, as unescaped JSON Pointer segments (RFC 6901). */
export type Pointer = readonly string[]

export interface Located {
  pointer: Pointer
  value: Json
}

export interface Asked {
  method: string
  /** With or without its query. */
  path: string
}

export interface Answered {
  status: number
  headers: Headers
  body: string
}

export const METHODS = ['get', 'head', 'post', 'put', 'patch', 'delete', 'options'] as const

const file = join(import.meta.dirname, '../../openapi.yaml')

export const document: JsonObject = parse(readFileSync(file, 'utf8'))

// strictRequired and strictTypes would reject schemas that narrow a $ref.
const ajv = new Ajv2020({ allErrors: true, strict: true, strictRequired: false, strictTypes: false })
addFormats.default(ajv)
// Top-level members of the document, which strict mode would reject as unknown keywords.
ajv.addVocabulary(Object.keys(document))
ajv.addSchema(document, 'openapi.yaml')

/** The value at `pointer`. Follows each $ref on the way, but not one at the location itself. */
export function locate(pointer: Pointer): Located | undefined {
  const [parent, name] = [pointer.slice(0, -1), pointer.at(-1)]
  if (name === undefined) return { pointer, value: document }
  const from = followed(locate(parent))
  const value = isNode(from?.value) && Object.hasOwn(from.value, name) ? from.value[name] : undefined
  return from && value !== undefined ? { pointer: [...from.pointer, name], value } : undefined
}

function followed(at: Located | undefined): Located | undefined {
  const ref = isObject(at?.value) ? at.value.$ref : undefined
  return typeof ref === 'string' ? followed(locate(segmentsOf(ref))) : at
}

/** The segments of a $ref into this document. */
export function segmentsOf(ref: string): Pointer {
  if (!ref.startsWith('#/')) throw new Error(`openapi.yaml: ${ref} leaves the document`)
  return ref
    .slice(2)
    .split('/')
    .map(segment => segment.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** An object, or an array with its indices as keys. */
function isNode(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null
}

export function isObject(value: Json | undefined): value is JsonObject {
  return isNode(value) && !Array.isArray(value)
}

/** The members at `pointer`; empty if there is no value. */
export function membersAt(...pointer: string[]): JsonObject {
  const value = followed(locate(pointer))?.value
  return isObject(value) ? value : {}
}

/**
 * Validation errors of `value` against the schema at `pointer`. They name only locations and keywords, because a value
 * may be a token, and so may the name of an undeclared member. ajv caches the compiled schema.
 */
export function problems(pointer: Pointer, value: Json): string[] {
  const at = locate(pointer)?.pointer ?? pointer
  const fragment = at.map(segment => encodeURIComponent(segment.replaceAll('~', '~0').replaceAll('/', '~1')))
  const validate = ajv.getSchema(`openapi.yaml#/${fragment.join('/')}`)
  if (!validate) throw new Error(`openapi.yaml has no schema at ${at.join(' ')}`)
  if (validate(value)) return []
  return (validate.errors ?? []).map(
    error => `${error.instancePath || '/'} fails ${error.keyword} (${error.schemaPath})`,
  )
}

interface Route {
  template: string
  pattern: RegExp
}

/** Puts literal paths before those with parameters, so that `/verify` does not match `/verify/{path}` with an empty rest. */
const routes: Route[] = Object.keys(membersAt('paths'))
  .map(template => ({ template, pattern: patternOf(template) }))
  .sort((a, b) => Number(a.template.includes('{')) - Number(b.template.includes('{')))

function patternOf(template: string): RegExp {
  const parameters = membersAt('paths', template).parameters
  const takesRest = (Array.isArray(parameters) ? parameters : []).some(
    each => isObject(each) && each['x-rest-of-path'],
  )
  const source = template.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, takesRest ? '.*' : '[^/]+')
  return new RegExp(`^${source}$`)
}

/** Every operation as `METHOD /path/{parameter}`, to be compared with the router's own table. */
export function documentedRoutes(): string[] {
  return routes.flatMap(({ template }) =>
    METHODS.filter(method => membersAt('paths', template)[method]).map(
      method => `${method.toUpperCase()} ${template}`,
    ),
  )
}

/** Throws all errors if the document doesn't allow this answer to this request. */
export function checkResponse(request: Asked, response: Answered): void {
  const method = request.method.toUpperCase()
  const path = request.path.replace(/[?#].*$/s, '')
  const pointer = responsePointer(method, path, response.status)
  const wrong = [
    ...wrongHeaders(pointer, response.headers),
    ...(method === 'HEAD' ? wrongHeadBody(response) : wrongBody(pointer, response)),
  ]
  if (wrong.length > 0)
    throw new Error(`${method} ${path} answered ${response.status}, but ${wrong.join('; ')}`)
}

function responsePointer(method: string, path: string, status: number): Pointer {
  const route = routes.find(({ pattern }) => pattern.test(path))
  const operation = route && operationPointer(route.template, method)
  if (!operation) return unmatchedPointer(route, method, path, status)
  const pointer = [...operation, 'responses', String(status)]
  if (!locate(pointer))
    throw new Error(`${method} ${route.template} answered ${status}, which is not declared`)
  return pointer
}

/** HEAD is GET without the body (RFC 9110 9.3.2) unless it is declared itself. */
function operationPointer(template: string, method: string): Pointer | undefined {
  const candidates = method === 'HEAD' ? ['head', 'get'] : [method.toLowerCase()]
  return candidates.map(name => ['paths', template, name]).find(pointer => locate(pointer))
}

/** Only an unknown path is 404, and only a wrong method is 405. */
function unmatchedPointer(route: Route | undefined, method: string, path: string, status: number): Pointer {
  const expected = route ? 405 : 404
  if (status !== expected)
    throw new Error(`${method} ${path} answered ${status}, but matches no operation: ${expected}`)
  return ['components', 'responses', route ? 'MethodNotAllowed' : 'NotFound']
}

function wrongHeaders(pointer: Pointer, headers: Headers): string[] {
  return Object.keys(membersAt(...pointer, 'headers')).flatMap(name => {
    const at = [...pointer, 'headers', name]
    const value = headers.get(name)
    if (value === null) return membersAt(...at).required ? [`it lacks the header ${name}`] : []
    return problems([...at, 'schema'], asNumber([...at, 'schema'], value)).map(
      problem => `the header ${name}: ${problem}`,
    )
  })
}

/** Header values are text; where the schema requires an integer, digits are converted. */
function asNumber(schema: Pointer, text: string): Json {
  return membersAt(...schema).type === 'integer' && /^\d+$/.test(text) ? Number(text) : text
}

function wrongHeadBody(response: Answered): string[] {
  return response.body === '' ? [] : ['it has a body']
}

function wrongBody(pointer: Pointer, response: Answered): string[] {
  const declared = Object.keys(membersAt(...pointer, 'content'))
  if (declared.length === 0) return response.body === '' ? [] : ['it has a body where none is declared']
  const type = response.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase() ?? 'absent'
  if (!declared.includes(type)) return [`its content type is ${type}, declared: ${declared.join(', ')}`]
  const value = /[/+]json$/.test(type) ? parsed(response.body) : response.body
  if (value === undefined) return ['its body is not JSON']
  return [
    ...problems([...pointer, 'content', type, 'schema'], value),
    ...wrongRequestId(value, response.headers),
  ]
}

/** Undefined if the text isn't JSON. The parser's own error would quote the body. */
function parsed(body: string): Json | undefined {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}

/** A rule that a schema can't express: the id in the body equals the id in the header. */
function wrongRequestId(value: Json, headers: Headers): string[] {
  if (!isObject(value) || value.request_id === undefined) return []
  return value.request_id === headers.get('x-request-id') ? [] : ['its request_id is not its X-Request-Id']
}
