/**
 * Every error code that we send, with its HTTP status. They are codes of RFC 6749 5.2, RFC 6750 3.1 and RFC 8707 2 if
 * one fits; the rest are ours. This file imports nothing, so that every layer can throw these errors.
 */
export const STATUS = {
  invalid_request: 400,
  invalid_grant: 400,
  invalid_scope: 400,
  unauthorized_client: 400,
  unsupported_grant_type: 400,
  invalid_target: 400,
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
  /** Only logged, never sent. It must not contain secrets either. */
  readonly detail: string | undefined

  /** `description` is sent: it says how to fix the request, and never repeats the caller's input. */
  constructor(code: ErrorCode, description: string, detail?: string) {
    super(description)
    this.code = code
    this.detail = detail
  }

  get status(): (typeof STATUS)[ErrorCode] | 413 | 415 {
    return STATUS[this.code]
  }
}

/** The body is larger than the endpoint allows. RFC 6749 has no code for this, but HTTP has a status. */
export class PayloadTooLargeError extends ApiError {
  constructor(limit: number) {
    super('invalid_request', `the body is larger than ${limit} bytes; send less`)
  }

  override get status() {
    return 413 as const
  }
}

/** The body has a content coding (RFC 9110 15.5.16). Nothing is unpacked here, because a small body could become a huge one. */
export class CodedBodyError extends ApiError {
  constructor() {
    super('invalid_request', 'the body has a Content-Encoding, for example gzip; send it without one')
  }

  override get status() {
    return 415 as const
  }
}

/** A required token is missing. The challenge then contains no error code (RFC 6750 3). */
export class TokenMissing extends ApiError {
  constructor(description: string) {
    super('invalid_token', description)
  }
}

/** `points` acts are allowed in each `duration` (seconds). */
export interface Quota {
  name: string
  points: number
  duration: number
}

/** The caller has made too many attempts, or too many at once (429). */
export class RateLimitedError extends ApiError {
  /** Seconds. */
  readonly retryAfter: number
  /** Undefined if the limit applies to concurrent calls instead of a period. */
  readonly quota: Quota | undefined

  constructor(
    retryAfter: number,
    description = `too many attempts; try again in ${retryAfter} s`,
    quota?: Quota,
  ) {
    super('too_many_requests', description)
    this.retryAfter = retryAfter
    this.quota = quota
  }
}

/** A conflict (409). `members` gives details as extension members of the response (RFC 9457 3.2). */
export class ConflictError extends ApiError {
  readonly members: Readonly<Record<string, string | number | Record<string, number | boolean>>>

  constructor(description: string, members: ConflictError['members']) {
    super('conflict', description)
    this.members = members
  }
}

/** The process can't start, and the operator must change its settings or its machine. The message says how. */
export class SetupError extends Error {}

/** Reasons for a 503, used as a metrics label: a closed set. */
export const UNAVAILABLE = {
  change_feed: 'the state is too old, or no poll has succeeded since the request',
  database: 'the database did not answer, or is not the primary',
  busy: 'too many operations are waiting',
  signatures: 'too many asymmetric signatures are waiting to be verified',
  bodies: 'request bodies use all the memory reserved for them',
  changing: 'a record changed during every read',
  broken_record: "a customer's secrets can't be decrypted, or one is missing",
  workers: 'the first process, which counts for all workers, did not answer',
  not_ready: '/readyz alone: this replica is not ready',
} as const

export type UnavailableReason = keyof typeof UNAVAILABLE

const STATE_UNKNOWN = 'temporarily unavailable; try again'

/** The state can't be determined right now (503), so the request is neither accepted nor refused. */
export class Unavailable extends ApiError {
  readonly reason: UnavailableReason

  constructor(detail: string, reason: UnavailableReason, description = STATE_UNKNOWN) {
    super('temporarily_unavailable', description, detail)
    this.reason = reason
  }
}
