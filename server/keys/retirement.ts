import type { Querier } from '../../db/queries/change-feed.ts'
import {
  countLive,
  type Place,
  type Retired,
  retireAccessKeys,
  retireKey,
  retireRefreshKeys,
} from '../../db/queries/key-retirement.ts'
import { MAINTENANCE, type Origin } from '../audit/audit.ts'
import type { Config } from '../config/load.ts'
import { randomId } from '../crypto/credentials.ts'
import { Conflict, OAuthError } from '../lib/errors.ts'
import type { Limits } from '../lib/rate-limiter.ts'
import type { Revoker } from '../revocation/revoker.ts'

/** Access keys that one pass of maintenance retires, and refresh keys that it looks at. */
const BATCH = 100
const WINDOW = 1_000
/** What was under way when a secret was replaced is over by then, with what a slow tab may still present (s). */
const UNDER_WAY = 60

/** One version of one of a customer's secrets. */
export interface Version {
  use: 'access' | 'refresh'
  version: number
}

export interface RetirementOptions {
  db: Querier
  revoker: Revoker
  limits: Limits
  config: Pick<Config, 'refreshGrace'>
}

/** The end of older versions that nothing live can carry any more: by maintenance, or sooner by hand. */
export class Retirement {
  readonly #options: RetirementOptions
  /** Anywhere at first: whoever is restarted often gets to each in the end. */
  #place: Place = { customerId: randomId(10), version: 0 }

  constructor(options: RetirementOptions) {
    this.#options = options
  }

  /** Retires what has outlived its tokens and sessions, of all customers. */
  async pass(): Promise<void> {
    const { db } = this.#options
    await retireAccessKeys(db, { ...MAINTENANCE, limit: BATCH })
    const at = { ...this.#place, grace: this.#grace, window: WINDOW }
    const [looked] = await retireRefreshKeys(db, { ...MAINTENANCE, ...at })
    this.#place = looked?.next ?? this.#place
  }

  /**
   * Retires a previous version, and ends nothing that lives. Answers since when, and the bus's number if it is so since now.
   * Throws `not_found`, Conflict, TooMany.
   */
  async retire(customerId: string, which: Version, origin: Origin) {
    const { db, limits, revoker } = this.#options
    await limits.take('retire', customerId)
    const [found] = await retireKey(db, { ...origin, customerId, ...which, grace: this.#grace })
    if (!found) throw new OAuthError('not_found', `there is no ${which.use} secret of this version`)
    if (found.state === 'current')
      throw new OAuthError('conflict', 'this version is the current one, which signs; rotate first')
    if (found.state === 'previous') throw await this.#inTheWay(customerId, which, found)
    if (found.seq !== null) revoker.forgetCustomer(customerId, found.seq)
    return { retiredAt: found.retiredAt!, seq: found.seq ?? undefined }
  }

  async #inTheWay(customerId: string, { use }: Version, { sessions, tokens }: Retired): Promise<Conflict> {
    const uses = { access: use === 'access', refresh: use === 'refresh' }
    const [wouldEnd] = await countLive(this.#options.db, { customerId, ...uses })
    const live = use === 'access' ? { live_tokens: tokens } : { live_sessions: sessions }
    const why = sessions + tokens === 0 ? this.#tooSoon() : REASON[use](sessions + tokens)
    return new Conflict(`${why}, or rotate ${use} with now, which would end ${inWords(wouldEnd!)}`, {
      ...live,
      would_end: { ...wouldEnd! },
    })
  }

  #tooSoon() {
    return `requests that were under way when it was replaced may still need this version; try again in ${UNDER_WAY + this.#grace} s`
  }

  get #grace() {
    return this.#options.config.refreshGrace
  }
}

const REASON = {
  access: (tokens: number) =>
    `at most ${tokens} live access tokens may bear this version; wait until they have ended`,
  refresh: (sessions: number) =>
    `${sessions} live sessions still carry this version; wait until each has refreshed twice`,
}

const inWords = ({ sessions, tokens }: { sessions: number; tokens: number }) =>
  `${sessions} sessions and at most ${tokens} access tokens`
