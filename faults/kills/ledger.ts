import type { Answer } from './calls.ts'

/** What the clients of a drill of kills were told. A promise was made with each acknowledgement, and with nothing else. */

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
  /** Asks a replica. Undefined: it can't say now. */
  holds(replica: number): Promise<boolean | undefined>
}

/** What must never happen, by what it would be called. */
export type Wrong = 'lost' | 'fork' | 'logout' | 'odd answer'

export interface Found {
  wrong: Wrong
  what: string
}

export type Ledger = ReturnType<typeof openLedger>

/** An event of the audit by what it is and whom it concerns, as the checker makes it of a row. */
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
    /** What the audit must tell, by auditName. */
    audited,
    /** Acts that were tried again after a cut, and the token of the answer: its audit row says if there was an act before. */
    retried,
    wrongs,
    acknowledge(kind: Kind, ...auditNames: string[]) {
      acknowledged.set(kind, (acknowledged.get(kind) ?? 0) + 1)
      for (const name of auditNames) audited.add(name)
    },
    /** An act whose answer never came: whether it had been done all the same. */
    wasCut(kind: Kind, done: boolean) {
      const counts = cut.get(kind) ?? { done: 0, notDone: 0 }
      counts[done ? 'done' : 'notDone']++
      cut.set(kind, counts)
    },
    found(wrong: Wrong, what: string): undefined {
      wrongs.push({ wrong, what })
    },
    /** Neither what was asked for nor "not now". */
    odd(kind: Kind, { status, json }: Answer): undefined {
      wrongs.push({
        wrong: 'odd answer',
        what: `${kind}: ${status} ${json.error} ${json.error_description ?? json.detail}`,
      })
    },
  }
}
