import type { Answer } from './calls.ts'

/** Records what the clients of a kill drill were told. Only an acknowledgement is a promise. */

export type Kind =
  | 'signup'
  | 'issue'
  | 'refresh'
  | 'revoke token'
  | 'revoke session'
  | 'revoke subject'
  | 'rotate'
  | 'rotate now'
  | 'create API key'
  | 'delete API key'

export interface Fact {
  what: string
  /** Checks the fact at a replica. Undefined if the state is unknown. */
  holds(replica: number): Promise<boolean | undefined>
}

/** Outcomes that must never occur. */
export type Wrong = 'lost' | 'fork' | 'logout' | 'odd answer'

export interface Found {
  wrong: Wrong
  what: string
}

export type Ledger = ReturnType<typeof openLedger>

/** Identifies an audit event by its type and by what it concerns; the checker derives the same name from a row. */
export const auditName = (type: string, key: string) => `${type} ${key}`

export function openLedger() {
  const acknowledged = new Map<Kind, number>()
  const cut = new Map<Kind, { done: number; notDone: number }>()
  const facts: Fact[] = []
  const audited = new Set<string>()
  const retried: { kind: Kind; tokenId: string }[] = []
  const wrongs: Found[] = []

  return {
    acknowledged,
    cut,
    facts,
    /** Names (auditName) that must be in the audit. */
    audited,
    /** Acts retried after a cut, with the token of the answer. Its audit row shows whether an earlier attempt had succeeded. */
    retried,
    wrongs,
    acknowledge(kind: Kind, ...auditNames: string[]) {
      acknowledged.set(kind, (acknowledged.get(kind) ?? 0) + 1)
      for (const name of auditNames) audited.add(name)
    },
    /** Counts an act whose answer never came, by whether it had been done. */
    wasCut(kind: Kind, done: boolean) {
      const counts = cut.get(kind) ?? { done: 0, notDone: 0 }
      counts[done ? 'done' : 'notDone']++
      cut.set(kind, counts)
    },
    found(wrong: Wrong, what: string): undefined {
      wrongs.push({ wrong, what })
    },
    /** Records an answer that is neither the expected one nor "not now". */
    odd(kind: Kind, { status, json }: Answer): undefined {
      wrongs.push({
        wrong: 'odd answer',
        what: `${kind}: ${status} ${json.error} ${json.error_description ?? json.detail}`,
      })
    },
  }
}
