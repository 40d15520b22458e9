/** Requests and answers of one drill. All times are milliseconds of this process's monotonic clock. */
export interface History {
  decisions: Decision[]
  revocations: Revocation[]
}

export interface Decision {
  replica: number
  /** The token's name in this history, not the token. */
  token: string
  sentAt: number
  recordAnswer: number
  /** 0 if the connection broke. */
  status: number
  /** X-Assay-Age if present (ms). */
  age: number | undefined
}

export interface Revocation {
  token: string
  askedAt: number
  /** Undefined if the answer was an error, so the revocation may or may not hold. */
  acknowledgedAt: number | undefined
  /** Undefined if there is no answer, or none yet. */
  status: number | undefined
}
