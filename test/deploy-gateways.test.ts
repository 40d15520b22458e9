import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { identityHeaders } from '../server/routes/identity-headers.ts'
import { rulesQuery } from '../server/routes/verify.ts'
import { AMBIGUOUS, pathIn, RAW_FOLDING, UNAMBIGUOUS, WITH_PARAMETERS } from './support/paths.ts'

/** The files of gateways that no test runs. The gateways that run are tested in test/postgres. */

const read = (file: string) => readFileSync(join(import.meta.dirname, '../deploy', file), 'utf8')

const NAMES = Object.keys(identityHeaders({ client_id: '', sub: '', aud: '', jti: '', exp: 0 }))
const small = NAMES.map(name => name.toLowerCase())

/** Converts a RE2 pattern: it matches Unicode letters, and has `\x{130}` for JavaScript's `\u{130}`. */
const regex = (text: string) => {
  const [, flags = '', pattern = ''] = /^(?:\(\?([a-z]+)\))?(.*)$/s.exec(text) ?? []
  return new RegExp(pattern.replaceAll('\\x{', '\\u{'), `${flags}u`)
}

/** The CORS settings, which equal those of the gateways that other tests run. */
const CORS = {
  methods: 'GET, HEAD, POST, PUT, PATCH, DELETE',
  headers: 'Authorization, Content-Type',
  exposed: 'WWW-Authenticate, Retry-After',
  origin: 'https://app.example.com',
}

/** Every mixture of hyphens and underscores in a name. */
const spellings = (name: string): string[] => {
  const at = name.indexOf('-')
  if (at < 0) return [name]
  const rest = spellings(name.slice(at + 1))
  return ['-', '_'].flatMap(mark => rest.map(end => name.slice(0, at) + mark + end))
}

test.each([
  'caddy/assay.caddy',
  'haproxy/assay.lua',
  'nginx/identity.conf',
  'nginx/anonymous.conf',
  'envoy/envoy.yaml',
  'ingress-nginx/ingress.yaml',
])('%s handles every identity header of /verify', file => {
  const text = read(file).toLowerCase()
  expect(NAMES).toHaveLength(8)
  expect(small.filter(name => !text.includes(name))).toEqual([])
})

describe('deploy/traefik', () => {
  const { routers, middlewares, services } = parse(read('traefik/assay.yaml')).http
  const asking = Object.values<{ forwardAuth?: { authResponseHeadersRegex: string } }>(middlewares).flatMap(
    ({ forwardAuth }) => forwardAuth ?? [],
  )

  test('forwardAuth removes every spelling of our headers, and nothing else', () => {
    expect(asking).toHaveLength(2)
    for (const { authResponseHeadersRegex } of asking) {
      const taken = new RegExp(authResponseHeadersRegex.replace('(?i)', ''), 'i')
      for (const name of NAMES.flatMap(spellings)) expect(name).toMatch(taken)
      expect('X-Authority-Of').not.toMatch(taken)
      expect('X-Request-Id').not.toMatch(taken)
    }
  })

  test('Assay gets only the token, and trusts no header about the client’s address', () => {
    for (const one of asking)
      expect(one).toMatchObject({ trustForwardHeader: false, authRequestHeaders: ['Authorization'] })
  })

  test('where Assay is not asked, every spelling is removed individually', () => {
    const { customRequestHeaders } = middlewares['assay-anonymous'].headers
    expect(Object.keys(customRequestHeaders).sort()).toEqual(NAMES.flatMap(spellings).sort())
    expect(new Set(Object.values(customRequestHeaders))).toEqual(new Set(['']))
  })

  test('H60 a path that a backend may read differently is 400', () => {
    const { rule, priority, middlewares: names, service } = routers.ambiguous
    const refused = regex(/^PathRegexp\(`(.*)`\)$/.exec(rule)![1]!)
    // Traefik resolves the others.
    const own = AMBIGUOUS.filter(path => !/\/\/|\/(\.|%2e){1,2}(\/|$)|#/i.test(path))
    const raw = [...RAW_FOLDING, ...['\0', '\t', '\x1f', '\x7f'].map(control => `/public/x${control}`)]
    for (const path of [...WITH_PARAMETERS.map(pathIn), ...own, ...raw]) expect(path).toMatch(refused)
    expect('/public/\u2122/\xfc/Kk/Ss/Ii').not.toMatch(refused)
    for (const path of UNAMBIGUOUS.map(pathIn)) expect(path).not.toMatch(refused)
    for (const other of Object.values<{ priority?: number }>(routers))
      expect(other.priority ?? 0).toBeLessThanOrEqual(priority)
    expect(service).toBe('noop@internal')
    expect(names).toEqual(['assay-ambiguous'])
    const nobody = { sourceRange: ['255.255.255.255/32'], rejectStatusCode: 400 }
    expect(middlewares['assay-ambiguous']).toEqual({ ipAllowList: nobody })
  })

  test('a preflight is answered before authentication, for the listed origin, without allowing credentials', () => {
    const { customResponseHeaders, ...policy } = middlewares['assay-cors'].headers
    expect(policy).toEqual({
      accessControlAllowOriginList: [CORS.origin],
      accessControlAllowMethods: CORS.methods.split(', '),
      accessControlAllowHeaders: CORS.headers.split(', '),
      accessControlExposeHeaders: CORS.exposed.split(', '),
      accessControlMaxAge: 600,
      accessControlAllowCredentials: false,
      addVaryHeader: true,
    })
    const dropped = ['Access-Control-Allow-Origin', 'Access-Control-Allow-Credentials']
    expect(customResponseHeaders).toEqual(Object.fromEntries(dropped.map(name => [name, ''])))
    for (const { service, middlewares: names } of Object.values<{ service: string; middlewares?: string[] }>(
      routers,
    ))
      if (service === 'backend') expect(names?.[1]).toBe('assay-cors')
  })

  test('a rule also applies to paths in capitals, without a slash at the end, and with a suffix', () => {
    const protectedBy = regex(/^PathRegexp\(`(.*)`\)$/.exec(routers.reports.rule)![1]!)
    for (const path of ['/reports', '/reports/', '/reports/x', '/REPORTS/x', '/Reports', '/reports.json'])
      expect(path).toMatch(protectedBy)
    for (const path of ['/reportsx', '/x/reports', '/']) expect(path).not.toMatch(protectedBy)
  })

  test('H41 a client can neither upgrade its connection to the backend nor give it another path', () => {
    const toBackend = Object.values<{ service: string; middlewares?: string[] }>(routers).filter(
      ({ service }) => service === 'backend',
    )
    expect(toBackend).toHaveLength(3)
    for (const { middlewares: names } of toBackend) expect(names?.[0]).toBe('assay-strip')
    const { customRequestHeaders } = middlewares['assay-strip'].headers
    const routing = ['X-Original-URL', 'X-Rewrite-URL'].flatMap(spellings)
    const removed = ['HTTP2-Settings', 'SCRIPT_NAME', 'PATH_INFO', ...routing]
    expect(Object.keys(customRequestHeaders).sort()).toEqual(removed.sort())
    expect(new Set(Object.values(customRequestHeaders))).toEqual(new Set(['']))
  })

  test('every name refers to something that exists, and every route to the backend has a middleware', () => {
    for (const { middlewares: names = [], service } of Object.values<{
      middlewares?: string[]
      service: string
    }>(routers)) {
      if (service === 'noop@internal') continue
      expect(services[service]).toBeDefined()
      expect(service === 'assay' || names.length > 0).toBe(true)
      for (const name of names) expect(middlewares[name]).toBeDefined()
    }
    expect(routers.assay.entryPoints).toEqual(['assay'])
    expect(services.assay.loadBalancer.healthCheck.path).toBe('/readyz')
  })
})

describe('deploy/envoy', () => {
  const { listeners, clusters } = parse(read('envoy/envoy.yaml')).static_resources
  const manager = listeners[0].filter_chains[0].filters[0].typed_config
  const [mutation, cors, authz, router] = manager.http_filters.map(
    (filter: { typed_config: Record<string, unknown> }) => filter.typed_config,
  )
  const [host] = manager.route_config.virtual_hosts
  /** Envoy matches the whole path, without the query. */
  const whole = (text: string) => regex(text.replace(/^(\(\?[a-z]+\))?(.*)$/s, '$1^(?:$2)$$'))

  test('forged headers are removed before authentication', () => {
    const removed = mutation.mutations.request_mutations.map((one: { remove: string }) => one.remove)
    expect(removed.sort()).toEqual([...small, 'x-assay-require', 'x-original-url', 'x-rewrite-url'].sort())
    expect(cors['@type']).toMatch(/cors/)
    expect(authz['@type']).toMatch(/ext_authz/)
    expect(router['@type']).toMatch(/router/)
    expect(manager.common_http_protocol_options.headers_with_underscores_action).toBe('DROP_HEADER')
  })

  test('an unknown state is 503: neither accepted nor refused', () => {
    expect(authz.failure_mode_allow).toBe(false)
    expect(authz.status_on_error).toEqual({ code: 'ServiceUnavailable' })
    const [assay] = clusters.filter(({ name }: { name: string }) => name === 'assay')
    expect(assay.common_lb_config.healthy_panic_threshold.value).toBe(0)
  })

  test('the client’s query is never read as a rule, not even for /', () => {
    const { path_prefix: prefix } = authz.http_service
    for (const client of ['/?scope=read', '/', '//?scope=read', '/orders?scope=read', '*'])
      expect(rulesQuery(prefix + client)).toBe('')
  })

  test('a path is normalized before a route is selected by it', () => {
    expect(manager).toMatchObject({
      normalize_path: true,
      merge_slashes: true,
      path_with_escaped_slashes_action: 'REJECT_REQUEST',
    })
  })

  test('H60 a path that a backend may read differently is 400, before any other route', () => {
    const [{ match, direct_response: answer, route }] = host.routes
    expect(answer).toEqual({ status: 400 })
    expect(route).toBeUndefined()
    const refused = whole(match.safe_regex.regex)
    // Envoy's settings refuse or normalize the others.
    const own = AMBIGUOUS.filter(path => /;|%(3b|[01].|7f|25|c4|c5|e2)/i.test(path))
    const raw = [...RAW_FOLDING, '/public/x\t', '/public/x\x7f']
    for (const path of [...WITH_PARAMETERS.map(pathIn), ...own, ...raw]) expect(path).toMatch(refused)
    expect('/public/\u2122/\xfc/Kk/Ss/Ii').not.toMatch(refused)
    for (const path of UNAMBIGUOUS.map(pathIn)) expect(path).not.toMatch(refused)
  })

  test('a rule also applies to paths in capitals, without a slash at the end, and with a suffix', () => {
    const [reports] = host.routes.filter((route: object) => JSON.stringify(route).includes('scope=reports'))
    const protectedBy = whole(reports.match.safe_regex.regex)
    for (const path of ['/reports', '/reports/', '/reports/x', '/REPORTS/x', '/Reports', '/reports.json'])
      expect(path).toMatch(protectedBy)
    for (const path of ['/reportsx', '/x/reports', '/']) expect(path).not.toMatch(protectedBy)
  })

  test('H60 a needlessly encoded letter, digit or mark is 400, so that no rule depends on decoding', () => {
    const refused = whole(host.routes[0].match.safe_regex.regex)
    const marks = [...Array(128).keys()]
      .map(code => String.fromCharCode(code))
      .filter(one => /[\w.~-]/.test(one))
    expect(marks).toHaveLength(66)
    for (const mark of marks) {
      const encoded = mark.charCodeAt(0).toString(16)
      for (const hex of [encoded, encoded.toUpperCase()]) expect(`/%${hex}x`).toMatch(refused)
      expect(`/${mark}x`).not.toMatch(refused)
    }
  })

  test('H60 a Host header with a URL delimiter is 400, before any route to the backend', () => {
    const { match, direct_response: answer } = host.routes[1]
    const [{ name, string_match: authority }] = match.headers
    expect({ prefix: match.prefix, name, answer }).toEqual({
      prefix: '/',
      name: ':authority',
      answer: { status: 400 },
    })
    const refused = whole(authority.safe_regex.regex)
    for (const sign of ['?', '#', '\\', '/', '@']) expect(`gateway.test${sign}x`).toMatch(refused)
    for (const usual of ['gateway.test', 'gateway.test:80', '[::1]:80']) expect(usual).not.toMatch(refused)
  })

  test('a preflight is answered before authentication, for the listed origin, without allowing credentials', () => {
    const { '@type': _, ...policy } = host.typed_per_filter_config['envoy.filters.http.cors']
    expect(policy).toEqual({
      allow_origin_string_match: [{ exact: CORS.origin }],
      allow_methods: CORS.methods,
      allow_headers: CORS.headers,
      expose_headers: CORS.exposed,
      max_age: '600',
      allow_credentials: false,
    })
    expect(host.response_headers_to_add).toEqual([{ header: { key: 'vary', value: 'Origin' } }])
    const dropped = ['access-control-allow-origin', 'access-control-allow-credentials']
    expect(host.response_headers_to_remove).toEqual(dropped)
  })

  test('only /public/ is not authenticated, and the token ends there', () => {
    const disabled = host.routes.filter(
      (route: { direct_response?: object }) =>
        JSON.stringify(route).includes('"disabled":true') && !route.direct_response,
    )
    expect(disabled.map(({ match }: { match: { prefix: string } }) => match.prefix)).toEqual(['/public/'])
    expect(host.request_headers_to_remove).toContain('authorization')
  })
})

describe('deploy/ingress-nginx', () => {
  const [ingress, question] = parseAllDocuments(read('ingress-nginx/ingress.yaml')).map(one => one.toJS())
  const annotation = (name: string) => ingress.metadata.annotations[`nginx.ingress.kubernetes.io/${name}`]

  test('every identity header is replaced', () => {
    expect(annotation('auth-response-headers').split(',')).toEqual(NAMES)
  })

  test('the client’s own rule doesn’t reach Assay', () => {
    const { namespace, name } = question.metadata
    expect(annotation('auth-proxy-set-headers')).toBe(`${namespace}/${name}`)
    expect(question.data).toEqual({ 'X-Assay-Require': '', 'X-Consistency': '' })
  })

  test('H60 a path that a backend may read differently is 400, as in deploy/nginx', () => {
    const refusals = (text: string) => text.match(/^if \(.*\n *return 400;\n\}$/gm)
    expect(refusals(annotation('server-snippet'))).toHaveLength(3)
    expect(refusals(annotation('server-snippet'))).toEqual(refusals(read('nginx/assay.conf')))
  })

  test('H41 a client cannot upgrade its connection to the backend', () => {
    expect(annotation('configuration-snippet')).toContain('proxy_set_header HTTP2-Settings "";')
  })

  test('H41 a client cannot give the backend another path', () => {
    for (const name of ['X-Original-URL', 'X-Rewrite-URL'])
      expect(annotation('configuration-snippet')).toContain(`proxy_set_header ${name} "";`)
  })

  test('an unknown state is 503', () => {
    expect(annotation('configuration-snippet')).toContain('error_page 500 = @assay_unavailable;')
    expect(annotation('server-snippet')).toMatch(/location @assay_unavailable \{[^}]*return 503;/)
  })

  test('a preflight is answered before authentication, for the listed origin, without allowing credentials', () => {
    expect(annotation('enable-cors')).toBe('true')
    expect(annotation('cors-allow-origin')).toBe(CORS.origin)
    expect(annotation('cors-allow-methods')).toBe(CORS.methods)
    expect(annotation('cors-allow-headers')).toBe(CORS.headers)
    expect(annotation('cors-expose-headers')).toBe(CORS.exposed)
    expect(annotation('cors-max-age')).toBe('600')
    expect(annotation('cors-allow-credentials')).toBe('false')
    const snippet = annotation('configuration-snippet')
    expect(snippet).toContain('add_header Vary Origin always;')
    for (const name of ['Access-Control-Allow-Origin', 'Access-Control-Allow-Credentials'])
      expect(snippet).toContain(`proxy_hide_header ${name};`)
  })

  test('uses the Service of deploy/kubernetes, and caches no answer', () => {
    const service = parse(read('kubernetes/service.yaml'))
    const url = new URL(annotation('auth-url'))
    expect(url.hostname.split('.')[0]).toBe(service.metadata.name)
    expect(url.port).toBe(String(service.spec.ports[0].port))
    expect(url.pathname).toBe('/verify')
    expect(Object.keys(ingress.metadata.annotations).filter(name => name.includes('cache'))).toEqual([])
  })
})
