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

export const ok = (found: string): Found => ({ state: 'ok', found })
export const warning = (found: string, remedy: string): Found => ({ state: 'warning', found, remedy })
export const wrong = (found: string, remedy: string): Found => ({ state: 'wrong', found, remedy })
