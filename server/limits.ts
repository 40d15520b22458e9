import {
  type RateLimiterAbstract,
  RateLimiterMemory,
  RateLimiterRedis,
  type RateLimiterRes,
} from 'rate-limiter-flexible'
import type { Redis } from '../db/redis.ts'
import { installationMac } from './crypto/installation.ts'
import { TooMany } from './errors.ts'
import type { Vault } from './records.ts'

/** Tries in a span of seconds, before the next is refused. */
const LIMITS = {
  /** From one address, whatever the emails. */
  login: { points: 60, duration: 60 },
  /** For one email from one address: who knows the email can't lock its owner out from elsewhere. */
  loginOfEmail: { points: 10, duration: 60 },
  signup: { points: 20, duration: 60 },
  password: { points: 10, duration: 60 },
  rotate: { points: 30, duration: 600 },
  /** Of secrets by hand; each may count a day of the audit. */
  retire: { points: 60, duration: 600 },
  /** Each stays in every replica's memory for a day. */
  subject: { points: 600, duration: 60 },
}

/** Where replicas count together. */
export interface Shared {
  redis: Pick<Redis, 'eval'>
  vault: Pick<Vault, 'installationId' | 'installationKey'>
}

/**
 * Counts before anything is hashed, in one step, so that parallel tries can't pass together: in Redis for all replicas,
 * and here when there is none or it fails.
 */
export class Limits {
  readonly #shared: Shared | undefined
  readonly #limiters: Record<keyof typeof LIMITS, RateLimiterAbstract>

  constructor(shared: Shared | undefined) {
    this.#shared = shared
    const limiters = Object.entries(LIMITS).map(([name, limit]): [string, RateLimiterAbstract] => {
      const here = new RateLimiterMemory({ ...limit, keyPrefix: name })
      return [name, shared ? together(shared, here) : here]
    })
    this.#limiters = Object.fromEntries(limiters) as Record<keyof typeof LIMITS, RateLimiterAbstract>
  }

  /** Throws TooMany. */
  async take(name: keyof typeof LIMITS, key: string): Promise<void> {
    try {
      await this.#limiters[name].consume(this.#shared ? nameless(this.#shared, key) : key)
    } catch (refused) {
      if (refused instanceof Error) throw refused
      throw new TooMany(Math.max(1, Math.ceil((refused as RateLimiterRes).msBeforeNext / 1000)))
    }
  }
}

function together({ redis, vault }: Shared, here: RateLimiterMemory) {
  return new RateLimiterRedis({
    points: here.points,
    duration: here.duration,
    keyPrefix: `assay:${vault.installationId}:limit:${here.keyPrefix}`,
    storeClient: { eval: async (...call: Parameters<Redis['eval']>) => numbers(await redis.eval(...call)) },
    useRedisPackage: true,
    insuranceLimiter: here,
  })
}

/** Count and milliseconds. Anything else would pass for a count of none. */
function numbers(answer: unknown): number[] {
  if (Array.isArray(answer) && answer.length === 2 && answer.every(Number.isInteger)) return answer
  throw new Error('Redis: an answer that is no count')
}

/** Neither emails nor addresses are told to Redis. */
const nameless = ({ vault }: Shared, key: string) => installationMac(vault.installationKey, 'limit', key, 16)

/** An address as a key: of IPv6 its /64, all of which one client has. */
export function addressKey(ip: string | undefined): string {
  if (!ip?.includes(':')) return ip ?? ''
  const [head = '', tail = ''] = ip.split('::')
  const groups = head.split(':')
  const zeros = ip.includes('::') ? 8 - groups.length - tail.split(':').length : 0
  return [...groups, ...Array<string>(Math.max(0, zeros)).fill('0'), ...tail.split(':')].slice(0, 4).join(':')
}
