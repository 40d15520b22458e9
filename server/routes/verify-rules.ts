import { LRUCache } from 'lru-cache'
import type { AccessClaims } from '../jwt/claims.ts'
import { SCOPE_TOKEN, scopesOf } from '../jwt/scopes.ts'

/** A proxy's requirements for a token, in addition to its validity. */
export interface Rules {
  scope?: string[]
  scopeAny?: string[]
  aud?: string
  customer?: string
}

const NONE: Rules = {}

/**
 * The most characters of all rules together: four times as many as a token's scope has. A client that reaches /verify itself
 * could send 60,000. Each scope in them would be searched in the token's scope, and returned in WWW-Authenticate.
 */
const MAX_LENGTH = 4_096

/** A proxy has a few rules and repeats them. Queries of clients can't make the cache larger than its maximum. */
const parsed = new LRUCache<string, { rules: Rules | undefined }>({ max: 1_000 })

/**
 * Returns the rules of the URL's query and of X-Assay-Require together, or undefined if either is malformed or they are too long.
 */
export function rulesOf(query: string, required: string | undefined): Rules | undefined {
  const text = required ? `${query}&${required}` : query
  if (text === '') return NONE
  if (text.length > MAX_LENGTH) return undefined
  const known = parsed.get(text)
  if (known) return known.rules
  const rules = parse(text)
  if (text.length <= 1_024) parsed.set(text, { rules })
  return rules
}

/** An unknown or repeated rule refuses every token, because a typo must not grant access. */
function parse(text: string): Rules | undefined {
  const rules: Rules = {}
  for (const [name, value] of new URLSearchParams(text)) {
    const rule = ruleOf(name, value)
    if (rule === undefined || Object.hasOwn(rules, Object.keys(rule)[0]!)) return undefined
    Object.assign(rules, rule)
  }
  return rules
}

function ruleOf(name: string, value: string): Rules | undefined {
  const wanted = scopes(value)
  if (name === 'scope') return wanted && { scope: wanted }
  if (name === 'scope_any') return wanted && { scopeAny: wanted }
  if (name === 'aud') return value === '' ? undefined : { aud: value }
  return name === 'customer' && value !== '' ? { customer: value } : undefined
}

function scopes(value: string): string[] | undefined {
  const wanted = scopesOf(value)
  return wanted.length > 0 && wanted.every(scope => SCOPE_TOKEN.test(scope)) ? wanted : undefined
}

/** Returns the first rule that the token fails and, for a scope rule, the required scope. */
export function problemWith(
  claims: AccessClaims,
  rules: Rules,
): { reason: string; scope?: string } | undefined {
  if (rules === NONE) return undefined
  const has = scopesOf(claims.scope)
  if (rules.customer !== undefined && rules.customer !== claims.client_id) return { reason: 'rule_customer' }
  if (rules.aud !== undefined && ![claims.aud].flat().includes(rules.aud)) return { reason: 'rule_audience' }
  if (rules.scope && !rules.scope.every(scope => has.includes(scope)))
    return { reason: 'rule_scope', scope: rules.scope.join(' ') }
  if (rules.scopeAny && !rules.scopeAny.some(scope => has.includes(scope)))
    return { reason: 'rule_scope', scope: rules.scopeAny.join(' ') }
  return undefined
}
