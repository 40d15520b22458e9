import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible'
import { TooMany } from './errors.ts'

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

/** Counts before anything is awaited or hashed, so that parallel tries can't pass together. */
export class Limits {
  readonly #limiters = Object.fromEntries(
    Object.entries(LIMITS).map(([name, limit]) => [
      name,
      new RateLimiterMemory({ ...limit, keyPrefix: name }),
    ]),
  ) as Record<keyof typeof LIMITS, RateLimiterMemory>

  /** Throws TooMany. */
  async take(name: keyof typeof LIMITS, key: string): Promise<void> {
    try {
      await this.#limiters[name].consume(key)
    } catch (refused) {
      if (refused instanceof Error) throw refused
      throw new TooMany(Math.max(1, Math.ceil((refused as RateLimiterRes).msBeforeNext / 1000)))
    }
  }
}

/** An address as a key: of IPv6 its /64, all of which one client has. */
export function addressKey(ip: string | undefined): string {
  if (!ip?.includes(':')) return ip ?? ''
  const [head = '', tail = ''] = ip.split('::')
  const groups = head.split(':')
  const zeros = ip.includes('::') ? 8 - groups.length - tail.split(':').length : 0
  return [...groups, ...Array<string>(Math.max(0, zeros)).fill('0'), ...tail.split(':')].slice(0, 4).join(':')
}
