import { createRequire } from 'node:module'
import type { RateLimiterAbstract, RateLimiterRes } from 'rate-limiter-flexible'
import type { Redis } from '../../db/redis.ts'
import { RateLimitedError } from './errors.ts'
import type { RedisNames } from './redis-names.ts'

// By file: the package's index loads the limiters of all databases, which takes 50 ms of each start.
const require = createRequire(import.meta.url)
const RateLimiterMemory: typeof import('rate-limiter-flexible').RateLimiterMemory = require('rate-limiter-flexible/lib/RateLimiterMemory.js')
const RateLimiterRedis: typeof import('rate-limiter-flexible').RateLimiterRedis = require('rate-limiter-flexible/lib/RateLimiterRedis.js')

/** `points` attempts are allowed per `duration` seconds; further ones are refused. */
const LIMITS = {
  /** Per address, for all emails together, and for guesses of the current password in password changes. */
  login: { points: 60, duration: 60 },
  /**
   * Per email and address, so that someone who knows an email can't lock out its owner from another address.
   */
  loginOfEmail: { points: 10, duration: 60 },
  signup: { points: 20, duration: 60 },
  /** Each new account has quotas of its own. */
  signupOfDay: { points: 200, duration: 86_400 },
  /** Per session, so that someone with a stolen token can't lock out its owner: a new login has another session. */
  passwordOfSession: { points: 10, duration: 60 },
  /** Per address, for one-time tokens of all customers together: they can't be guessed, but each costs a look-up. */
  oneTimeToken: { points: 20, duration: 60 },
  /** New API keys of a customer. Each is an event of the audit, and deleting it another. */
  apiKey: { points: 300, duration: 600 },
  /** Rotations by a customer itself. */
  rotate: { points: 30, duration: 600 },
  /** Retirements of secrets by a customer itself. Each may have to count the audit events of a day. */
  retire: { points: 60, duration: 600 },
  /** Revocations of a subject by a customer. Each is in every replica's memory until the customer's tokens have expired. */
  subject: { points: 600, duration: 60 },
  /** The same, per address, for all its customers together: anyone can have many if signup is open. */
  subjectOfAddress: { points: 1200, duration: 60 },
  /** Per service, for all its customers together. The limits of each customer apply as well. */
  subjectOfService: { points: 6000, duration: 60 },
  /** Per service, for all its customers together. Operators have no limit. */
  rotateOfService: { points: 300, duration: 600 },
  retireOfService: { points: 600, duration: 600 },
  /** New customers. Each has quotas of its own, and costs a password hash. */
  createOfService: { points: 60, duration: 60 },
  /** Pages of exported subjects by a customer. Each may read 10,000 audit events, and writes one. */
  subjectExport: { points: 300, duration: 60 },
}

export type Limit = keyof typeof LIMITS

export interface RateLimiter {
  /** Counts an attempt of this key. Throws RateLimitedError, or Unavailable if it can't be counted. */
  take(name: Limit, key: string): Promise<void>
}

/** Counts before anything is awaited or hashed, so that parallel attempts can't exceed the limit. */
export class MemoryRateLimiter implements RateLimiter {
  readonly #limiters = ofEach(inMemory)

  take(name: Limit, key: string): Promise<void> {
    return consume(name, this.#limiters[name], key)
  }
}

/** The Redis that the replicas share for counting, and the names of the counts in it. */
export interface Shared {
  redis: Pick<Redis, 'eval'>
  names: Pick<RedisNames, 'limit' | 'limitKey'>
}

/**
 * Counts atomically in Redis, for all replicas of one running database: attempts at a copy of the database don't lock out the
 * users of this one. While Redis fails, each replica counts in its own memory.
 */
export class RedisRateLimiter implements RateLimiter {
  readonly #shared: Shared
  readonly #limiters: Record<Limit, RateLimiterAbstract>

  constructor(shared: Shared) {
    this.#shared = shared
    this.#limiters = ofEach(name => inRedis(name, shared))
  }

  take(name: Limit, key: string): Promise<void> {
    return consume(name, this.#limiters[name], this.#shared.names.limitKey(key))
  }
}

async function consume(name: Limit, limiter: RateLimiterAbstract, key: string): Promise<void> {
  try {
    await limiter.consume(key)
  } catch (refused) {
    if (refused instanceof Error) throw refused
    throw limited(name, Math.max(1, Math.ceil((refused as RateLimiterRes).msBeforeNext / 1000)))
  }
}

/** `retryAfter`: seconds. */
export const limited = (name: Limit, retryAfter: number) =>
  new RateLimitedError(retryAfter, undefined, { name, ...LIMITS[name] })

const ofEach = <Limiter>(make: (name: Limit) => Limiter) =>
  Object.fromEntries((Object.keys(LIMITS) as Limit[]).map(name => [name, make(name)])) as Record<
    Limit,
    Limiter
  >

const inMemory = (name: Limit) => new RateLimiterMemory({ ...LIMITS[name], keyPrefix: name })

const inRedis = (name: Limit, { redis, names }: Shared) =>
  new RateLimiterRedis({
    ...LIMITS[name],
    keyPrefix: names.limit(name),
    storeClient: { eval: async (...call: Parameters<Redis['eval']>) => numbers(await redis.eval(...call)) },
    useRedisPackage: true,
    insuranceLimiter: inMemory(name),
  })

/** Checks that the script returned a count and milliseconds. The library would read anything else as a count of 0. */
function numbers(answer: unknown): number[] {
  if (Array.isArray(answer) && answer.length === 2 && answer.every(Number.isInteger)) return answer
  throw new Error('Redis: the answer is not a count')
}

/** The rate limit key of an address. An IPv6 address counts as its /64, because one client has all of it. */
export function addressKey(ip: string | undefined): string {
  if (!ip?.includes(':')) return ip ?? ''
  const [head = '', tail = ''] = ip.split('::')
  const groups = head.split(':')
  const zeros = ip.includes('::') ? 8 - groups.length - tail.split(':').length : 0
  return [...groups, ...Array<string>(Math.max(0, zeros)).fill('0'), ...tail.split(':')].slice(0, 4).join(':')
}
