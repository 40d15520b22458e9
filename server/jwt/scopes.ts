/** RFC 6749 3.3: `scope-token *( SP scope-token )`, as a set in the order given. */

/** Scopes of our own, which only signup, login and API keys hold and no token issued to anyone else does. */
export const ACCOUNT = 'assay:account'
export const SESSIONS = 'assay:sessions'
export const ANY = '*'

export const SCOPE_TOKEN = /^[\x21\x23-\x5b\x5d-\x7e]+$/

export const scopesOf = (scope: string | undefined): string[] => (scope ? scope.split(' ') : [])

const isOurs = (scope: string) => scope === ANY || scope.startsWith('assay:')

/**
 * What a token issued with an API key of `held` scopes carries: what was asked, if the key may give all of it; unasked,
 * all that the key names. Undefined: the key may not give what was asked.
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
