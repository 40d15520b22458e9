/** What was asked and answered in one drill. All times are milliseconds of one monotonic clock, this process's. */
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
  /** 0: the connection broke. */
  status: number
  /** X-Assay-Age, where there was one (ms). */
  age: number | undefined
}

export interface Revocation {
  token: string
  askedAt: number
  /** Undefined: answered by an error, so that it may hold or not. */
  acknowledgedAt: number | undefined
  /** Undefined: not answered, or yet to be. */
  status: number | undefined
}
