import type { Handler, Routes } from './call.ts'

export interface Found {
  /** As it was declared, so that ids don't become labels. */
  route: string
  handler: Handler
  params: Readonly<Record<string, string>>
}

interface Pattern {
  method: string
  route: string
  segments: string[]
  handler: Handler
}

const NONE = {}

/** From methods and paths to what answers them. A path matches whole, and as it is written. */
export class Router {
  /** Those without parameters, by method and path. */
  readonly #exact = new Map<string, Found>()
  readonly #patterns: Pattern[] = []
  /** By method and path, as they were declared. */
  readonly routes: readonly string[]

  constructor(routes: Routes) {
    this.routes = Object.keys(routes)
    for (const [name, handler] of Object.entries(routes)) {
      const [method = '', route = ''] = name.split(' ')
      if (route.includes(':')) this.#patterns.push({ method, route, segments: route.split('/'), handler })
      else this.#exact.set(name, { route, handler, params: NONE })
    }
  }

  find(method: string, path: string): Found | undefined {
    // Whoever asks for the head alone is answered as though it had asked for all; Node leaves out the body.
    const asked = method === 'HEAD' ? 'GET' : method
    return this.#exact.get(`${asked} ${path}`) ?? this.#match(asked, path.split('/'))
  }

  /** Those that the path has. */
  methodsOf(path: string): string[] {
    const methods = this.routes.map(name => name.slice(0, name.indexOf(' ')))
    return [...new Set(methods)].filter(method => this.find(method, path))
  }

  #match(method: string, parts: string[]): Found | undefined {
    for (const pattern of this.#patterns) {
      const params = pattern.method === method ? paramsOf(pattern.segments, parts) : undefined
      if (params) return { route: pattern.route, handler: pattern.handler, params }
    }
    return undefined
  }
}

function paramsOf(segments: string[], parts: string[]): Record<string, string> | undefined {
  if (segments.length !== parts.length) return undefined
  const params: Record<string, string> = {}
  for (const [i, segment] of segments.entries()) {
    const named = segment.startsWith(':')
    const value = named ? decoded(parts[i]!) : parts[i]
    if (named ? !value : value !== segment) return undefined
    if (named) params[segment.slice(1)] = value!
  }
  return params
}

/** Undefined: it is no UTF-8, percent-encoded, and so names nothing. */
function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part)
  } catch {
    return undefined
  }
}
