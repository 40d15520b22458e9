/** RFC 6749 3.3: `scope-token *( SP scope-token )`, as a set in the order given. */

/** Our own scopes. Only API keys and tokens from signup and login have them. */
export const ACCOUNT = 'assay:account'
export const SESSIONS = 'assay:sessions'
export const ANY = '*'

export const SCOPE_TOKEN = /^[\x21\x23-\x5b\x5d-\x7e]+$/

export const scopesOf = (scope: string | undefined): string[] => (scope ? scope.split(' ') : [])

const isOurs = (scope: string) => scope === ANY || scope.startsWith('assay:')

/**
 * The scope of a token issued with an API key that has the scopes `held`: the requested scope, or all of the
 * key's scopes except our own if none was requested. Undefined if the key may not grant the requested scope.
 */
export function grantedScope(held: string, asked: string | undefined): string | undefined {
  const may = scopesOf(held)
  if (asked === undefined) return may.filter(scope => !isOurs(scope)).join(' ')
  const wanted = scopesOf(asked)
  const granted = wanted.every(scope => !isOurs(scope) && (may.includes(scope) || may.includes(ANY)))
  return granted ? asked : undefined
}

/** Whether `scope` has all of `required`. */
export const hasAll = (scope: string | undefined, required: string[]) => {
  const has = scopesOf(scope)
  return required.every(one => has.includes(one))
}
