import { SLACK } from '../checker.ts'
import type { Granted } from './known.ts'

/** exp is in whole seconds (RFC 7519 2), so a token may expire up to this much early (ms). */
const SECOND = 1_000

/** A replica's clock estimate is ahead of the database's by at most the time of a poll, whose deadline is N/2 (`bound` is N). */
export const mayHaveExpired = ({ call, grant }: Granted, at: number, bound: number) =>
  at >= askedSince(call) + grant.lifetime - SECOND - bound / 2

export const hasExpired = ({ call, grant }: Granted, at: number) =>
  at > call.recordAnswer + grant.lifetime + SLACK

/** When the grant was first requested, which may be in an earlier attempt. */
export const askedSince = ({ act, sentAt }: Granted['call']) => ('since' in act ? act.since : sentAt)
