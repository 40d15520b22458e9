import { BlockList, isIP } from 'node:net'
import type { Log } from './logger.ts'

/**
 * Sees through trusted proxies, from the nearest to the farthest: the first address that is not trusted is the client's.
 * What stands further left in X-Forwarded-For is only what that client says of itself.
 */
export class ClientIps {
  readonly #trusted = new BlockList()
  readonly #any: boolean
  readonly #log: Log
  #warned = false

  /** Addresses and CIDR ranges, as the settings checked them. */
  constructor(ranges: string[], log: Log) {
    this.#any = ranges.length > 0
    this.#log = log
    for (const range of ranges) {
      const [address = '', prefix] = range.split('/')
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
      this.#trusted.addSubnet(address, Number(prefix ?? (family === 'ipv6' ? 128 : 32)), family)
    }
  }

  clientIp(peer: string | undefined, forwardedFor: string | undefined): string | undefined {
    if (forwardedFor !== undefined && !this.#any) this.#warn()
    if (peer === undefined) return undefined
    let client = plain(peer)
    const hops = forwardedFor?.split(',') ?? []
    while (hops.length > 0 && this.#trusts(client)) {
      const hop = plain(hops.pop()!.trim())
      if (isIP(hop) === 0) break
      client = hop
    }
    return client
  }

  #trusts(address: string): boolean {
    return this.#any && this.#trusted.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
  }

  /** Once: it is a setting that is missing, not a request that is wrong. */
  #warn() {
    if (this.#warned) return
    this.#warned = true
    this.#log.warn(
      'X-Forwarded-For arrives, but TRUST_PROXY is empty: the audit and the limits know only the proxy. Set TRUST_PROXY to its address',
    )
  }
}

/** An IPv4 address that a socket of both families spells as IPv6. */
const plain = (address: string) => (address.startsWith('::ffff:') ? address.slice(7) : address)
