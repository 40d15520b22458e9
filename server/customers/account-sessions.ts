import { type EndedSessions, endAccountSessions } from '../../db/queries/accounts.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import type { Services } from '../services.ts'

interface PasswordChange extends AuditContext {
  customerId: string
  keepSessionId?: string | undefined
}

/**
 * Completes a change of the password: ends the sessions of logins that the change waited for, and applies what was ended to
 * this replica. Returns the change feed's number if there were any.
 */
export async function endSessionsOfChange(
  { db, revoker }: Services,
  change: PasswordChange,
  changed: EndedSessions,
): Promise<number | undefined> {
  const [late] = await endAccountSessions(db, change)
  for (const { ended, seq } of [changed, late!])
    for (const id of ended) revoker.applySessionEnded(change.customerId, id, seq!)
  return late!.seq ?? changed.seq ?? undefined
}
