import { SLACK } from '../checker.ts'
import type { Granted } from './known.ts'

/** exp is a whole second (RFC 7519 2), so that it may come so much early (ms). */
const SECOND = 1_000

/** A replica's clock is ahead of the database's by a poll's way at most, whose deadline is N/2 (`bound`: N). */
export const mayHaveExpired = ({ call, grant }: Granted, at: number, bound: number) =>
  at >= askedSince(call) + grant.lifetime - SECOND - bound / 2

export const hasExpired = ({ call, grant }: Granted, at: number) =>
  at > call.recordAnswer + grant.lifetime + SLACK

/** When what it gave was first asked for: an earlier try may have begun it. */
export const askedSince = ({ act, sentAt }: Granted['call']) => ('since' in act ? act.since : sentAt)
