export interface Finding {
  check: string
  state: 'ok' | 'warning' | 'wrong'
  /** In words, without a secret. */
  found: string
  /** What to do. */
  remedy?: string
}

export type Found = Omit<Finding, 'check'>

/** Puts what was found under the check's name. */
export type Add = (check: string, found: Found) => void

/** A check that failed itself. Its error's message is left out: it could hold a part of a setting. */
export const failedCheck = (error: unknown): Found => {
  const { name = 'an unknown error', code } = (error ?? {}) as { name?: string; code?: string }
  return wrong(
    `this check failed: ${[name, code].filter(Boolean).join(' ')}`,
    'try again, and report it if it stays: it is a bug in Assay',
  )
}

export const ok = (found: string): Found => ({ state: 'ok', found })
export const warning = (found: string, remedy: string): Found => ({ state: 'warning', found, remedy })
export const wrong = (found: string, remedy: string): Found => ({ state: 'wrong', found, remedy })
