export interface Finding {
  check: string
  state: 'ok' | 'warning' | 'wrong'
  /** A phrase without a secret. */
  found: string
  /** How to fix it. */
  remedy?: string
}

export type CheckResult = Omit<Finding, 'check'>

/** Adds a result under the name of its check. */
export type Report = (check: string, result: CheckResult) => void

/** The result of a check that threw. It omits the error's message, which could contain part of a setting. */
export const failedCheck = (error: unknown): CheckResult => {
  const { name = 'an unknown error', code } = (error ?? {}) as { name?: string; code?: string }
  return wrong(
    `this check failed: ${[name, code].filter(Boolean).join(' ')}`,
    'try again; if it fails again, report it as a bug in Assay',
  )
}

export const ok = (found: string): CheckResult => ({ state: 'ok', found })
export const warning = (found: string, remedy: string): CheckResult => ({ state: 'warning', found, remedy })
export const wrong = (found: string, remedy: string): CheckResult => ({ state: 'wrong', found, remedy })
