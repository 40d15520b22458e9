import type { Origin } from '../db/audit.ts'
import type { Database } from '../db/client.ts'
import {
  confirmSessions,
  findRefreshable,
  listSessions,
  refreshSession,
  type SessionQuery,
} from '../db/sessions.ts'
import { Batch } from './batch.ts'
import type { AccessClaims, RefreshClaims } from './claims.ts'
import type { Config } from './config.ts'
import { randomId } from './crypto/secret.ts'
import { OAuthError } from './errors.ts'
import type { Granted, Issuer } from './issuing.ts'
import type { Log } from './log.ts'
import type { Revoker } from './revoking.ts'

export type { ListedSession } from '../db/sessions.ts'

export interface SessionsOptions {
  db: Database
  issuer: Issuer
  revoker: Revoker
  config: Pick<Config, 'refreshTokenTtl' | 'refreshPolicy' | 'refreshGrace'>
  log: Log
}

/** What becomes of a session: refreshed, confirmed, listed. How it begins is in issuing.ts, how it is ended in revoking.ts. */
export class Sessions {
  readonly #options: SessionsOptions
  readonly #seen: Batch<{ customer_id: string; id: string; gen: number }>

  constructor(options: SessionsOptions) {
    this.#options = options
    const { db, log } = options
    this.#seen = new Batch({
      write: seen => confirmSessions(db, { seen: JSON.stringify(seen) }),
      quiet: 0,
      log,
    })
  }

  /** Throws `invalid_grant`, `invalid_scope` or Unavailable. `scope` narrows this access token only. */
  async refresh(claims: RefreshClaims, scope: string | undefined, origin: Origin): Promise<Granted> {
    const { db, config, issuer, revoker } = this.#options
    const tokenId = randomId(15)
    const [row] = await refreshSession(db, {
      ...origin,
      customerId: claims.client_id,
      sessionId: claims.sid,
      gen: claims.gen,
      scope,
      policy: config.refreshPolicy,
      grace: config.refreshGrace,
      refreshTtl: config.refreshTokenTtl,
      tokenId,
    })
    if (!row) throw refused('ended')
    if (row.seq !== null) revoker.forgetSession(claims.client_id, claims.sid, row.seq)
    if (row.outcome === 'rotate' || row.outcome === 'replay' || row.outcome === 'adopt')
      return issuer.grantedFrom(claims.client_id, row, tokenId, scope ?? row.scope)
    throw refused(row.outcome)
  }

  /** Notes that the client has what its session's last rotation gave it, so that an earlier token is a thief's. */
  noteSeen(claims: AccessClaims) {
    if (claims.sid === undefined || claims.gen === undefined || claims.gen === 1) return
    const seen = { customer_id: claims.client_id, id: claims.sid, gen: claims.gen }
    this.#seen.note(`${claims.client_id} ${claims.sid}.${claims.gen}`, seen)
  }

  flush(): Promise<void> {
    return this.#seen.flush()
  }

  /** The scope of each session whose token could be used to refresh now, by jti; all from one snapshot. */
  async refreshable(tokens: RefreshClaims[]): Promise<Map<string, string>> {
    if (tokens.length === 0) return new Map()
    const asked = tokens.map(({ client_id: customer_id, sid: id, gen }) => ({ customer_id, id, gen }))
    const found = await findRefreshable(this.#options.db, { asked: JSON.stringify(asked) })
    return new Map(found.map(({ id, gen, scope }) => [`${id}.${gen}`, scope]))
  }

  list(query: SessionQuery) {
    return listSessions(this.#options.db, query)
  }
}

const REFUSED = {
  ended: 'the session of this refresh token has ended; log in again',
  reuse:
    'this refresh token was used before; its session is ended, for it may have been stolen; log in again',
  disabled:
    'the customer of this refresh token is disabled; it can be used again once the customer is enabled',
}

const refused = (outcome: 'ended' | 'reuse' | 'disabled' | 'scope') =>
  outcome === 'scope'
    ? new OAuthError('invalid_scope', "ask for a subset of the session's scope, or leave scope out")
    : new OAuthError('invalid_grant', REFUSED[outcome])
