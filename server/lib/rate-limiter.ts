import {
  type RateLimiterAbstract,
  RateLimiterMemory,
  RateLimiterRedis,
  type RateLimiterRes,
} from 'rate-limiter-flexible'
import type { Redis } from '../../db/redis.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { installationMac } from '../crypto/mac.ts'
import { RateLimitedError } from './errors.ts'

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

export type Limit = keyof typeof LIMITS

export interface RateLimiter {
  /** Counts a try of this key. Throws RateLimitedError, or Unavailable where it can't be counted. */
  take(name: Limit, key: string): Promise<void>
}

/** Counts before anything is awaited or hashed, so that parallel tries can't pass together. */
export class MemoryRateLimiter implements RateLimiter {
  readonly #limiters = ofEach(inMemory)

  take(name: Limit, key: string): Promise<void> {
    return consume(this.#limiters[name], key)
  }
}

/** What replicas that count together share. */
export interface Shared {
  redis: Pick<Redis, 'eval'>
  keyRing: Pick<KeyRing, 'installationId' | 'installationKey'>
}

/** Counts in one step in Redis, for all replicas; and here while it fails. */
export class RedisRateLimiter implements RateLimiter {
  readonly #shared: Shared
  readonly #limiters: Record<Limit, RateLimiterAbstract>

  constructor(shared: Shared) {
    this.#shared = shared
    this.#limiters = ofEach(name => inRedis(name, shared))
  }

  /** Neither emails nor addresses are told to Redis. */
  take(name: Limit, key: string): Promise<void> {
    const nameless = installationMac(this.#shared.keyRing.installationKey, 'limit', key, 16)
    return consume(this.#limiters[name], nameless)
  }
}

async function consume(limiter: RateLimiterAbstract, key: string): Promise<void> {
  try {
    await limiter.consume(key)
  } catch (refused) {
    if (refused instanceof Error) throw refused
    throw new RateLimitedError(Math.max(1, Math.ceil((refused as RateLimiterRes).msBeforeNext / 1000)))
  }
}

const ofEach = <Limiter>(make: (name: Limit) => Limiter) =>
  Object.fromEntries((Object.keys(LIMITS) as Limit[]).map(name => [name, make(name)])) as Record<
    Limit,
    Limiter
  >

const inMemory = (name: Limit) => new RateLimiterMemory({ ...LIMITS[name], keyPrefix: name })

const inRedis = (name: Limit, { redis, keyRing }: Shared) =>
  new RateLimiterRedis({
    ...LIMITS[name],
    keyPrefix: `assay:${keyRing.installationId}:limit:${name}`,
    storeClient: { eval: async (...call: Parameters<Redis['eval']>) => numbers(await redis.eval(...call)) },
    useRedisPackage: true,
    insuranceLimiter: inMemory(name),
  })

/** Count and milliseconds. Anything else would pass for a count of none. */
function numbers(answer: unknown): number[] {
  if (Array.isArray(answer) && answer.length === 2 && answer.every(Number.isInteger)) return answer
  throw new Error('Redis: an answer that is no count')
}

/** An address as a key: of IPv6 its /64, all of which one client has. */
export function addressKey(ip: string | undefined): string {
  if (!ip?.includes(':')) return ip ?? ''
  const [head = '', tail = ''] = ip.split('::')
  const groups = head.split(':')
  const zeros = ip.includes('::') ? 8 - groups.length - tail.split(':').length : 0
  return [...groups, ...Array<string>(Math.max(0, zeros)).fill('0'), ...tail.split(':')].slice(0, 4).join(':')
}
