/**
 * Everything a caller can be told went wrong, and the one status each has. RFC 6749 5.2 and RFC 6750 3.1 where they name
 * one; the rest are ours. Imports nothing, so that every layer may throw them.
 */
export const STATUS = {
  invalid_request: 400,
  invalid_grant: 400,
  invalid_scope: 400,
  unauthorized_client: 400,
  unsupported_grant_type: 400,
  invalid_client: 401,
  invalid_token: 401,
  invalid_credentials: 401,
  insufficient_scope: 403,
  customer_disabled: 403,
  signup_closed: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  precondition_failed: 412,
  too_many_requests: 429,
  server_error: 500,
  temporarily_unavailable: 503,
} as const

export type ErrorCode = keyof typeof STATUS

/** An error the caller may see. Anything else thrown is a bug and becomes server_error. */
export class ApiError extends Error {
  readonly code: ErrorCode
  /** Goes to the log and nowhere else; must hold no secret all the same. */
  readonly detail: string | undefined

  /** `description` is sent: it says what to mend, and never repeats what the caller sent. */
  constructor(code: ErrorCode, description: string, detail?: string) {
    super(description)
    this.code = code
    this.detail = detail
  }

  get status(): (typeof STATUS)[ErrorCode] | 413 {
    return STATUS[this.code]
  }
}

/** More bytes than the endpoint reads: RFC 6749 has no code of its own for it, HTTP has a status. */
export class PayloadTooLargeError extends ApiError {
  constructor(limit: number) {
    super('invalid_request', `the body is larger than ${limit} bytes; send less`)
  }

  override get status() {
    return 413 as const
  }
}

/** No token came where one is needed: the challenge then names no error (RFC 6750 3). */
export class TokenMissing extends ApiError {
  constructor(description: string) {
    super('invalid_token', description)
  }
}

/** Too many tries (429). */
export class RateLimitedError extends ApiError {
  /** Seconds. */
  readonly retryAfter: number

  constructor(retryAfter: number) {
    super('too_many_requests', `too many tries; try again in ${retryAfter} s`)
    this.retryAfter = retryAfter
  }
}

/** What stands in the way (409), as members of the answer too (RFC 9457 3.2). */
export class ConflictError extends ApiError {
  readonly members: Readonly<Record<string, string | number | Record<string, number>>>

  constructor(description: string, members: ConflictError['members']) {
    super('conflict', description)
    this.members = members
  }
}

/** Why a 503 is sent, as the metrics count it: a closed set. */
export const UNAVAILABLE = {
  change_feed: 'what is known here is too old, or no poll has succeeded since the question',
  database: 'the database gave no answer, or not as the primary',
  busy: 'more acts wait than can be done in time',
  changing: 'what was read changed at every look',
  broken_record: "a customer's secrets do not open, or one is missing",
  workers: 'the process that counts for all workers gave no answer',
  not_ready: 'asked by /readyz alone',
} as const

export type UnavailableReason = keyof typeof UNAVAILABLE

/** The state can't be known right now (503): never a no, never a yes. */
export class Unavailable extends ApiError {
  readonly reason: UnavailableReason

  constructor(detail: string, reason: UnavailableReason) {
    super('temporarily_unavailable', 'the state can not be known right now; try again', detail)
    this.reason = reason
  }
}
