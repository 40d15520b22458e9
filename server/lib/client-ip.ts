import { isIP } from 'node:net'
import proxyaddr from 'proxy-addr'
import type { Log } from './logger.ts'

/** The most hops that can be trusted proxies, because parsing each address costs time. */
const MAX_HOPS = 32
/** An IPv6 address with the name of a network interface. Node accepts names of any length. */
const MAX_ADDRESS_LENGTH = 64

/**
 * Finds the client's address behind trusted proxies: the first address that isn't trusted, from the nearest
 * hop to the farthest. Everything further left in X-Forwarded-For is only what that client claims.
 */
export class ClientIps {
  readonly #isTrusted: (address: string, hop: number) => boolean
  readonly #trustsAny: boolean
  readonly #log: Log
  #warned = false

  /** `ranges`: addresses and CIDR ranges, already validated. */
  constructor(ranges: string[], log: Log) {
    const isInRange = proxyaddr.compile(ranges)
    // The library reads `1` and `0x7f.1` as IPv4 addresses.
    this.#isTrusted = (address, hop) => hop < MAX_HOPS && isAddress(address) && isInRange(address, hop)
    this.#trustsAny = ranges.length > 0
    this.#log = log
  }

  /**
   * `peer`: the address of the connection. If a proxy reports something that isn't an address, returns the
   * proxy's.
   */
  clientIp(peer: string | undefined, forwardedFor: string | undefined): string | undefined {
    if (forwardedFor !== undefined && !this.#trustsAny) this.#warn()
    if (peer === undefined || forwardedFor === undefined) return peer && toPlain(peer)
    const path = proxyaddr.all(toRequest(peer, forwardedFor), this.#isTrusted)
    return toPlain(path.findLast(isAddress) ?? peer)
  }

  /** Warns once: a setting is missing, and no request is to blame. */
  #warn() {
    if (this.#warned) return
    this.#warned = true
    this.#log.warn(
      'X-Forwarded-For arrives, but TRUST_PROXY is empty: the audit and the limits know only the proxy. Set TRUST_PROXY to its address',
    )
  }
}

type Request = Parameters<typeof proxyaddr.all>[0]

/**
 * The part of a request that the library reads. Tabs become spaces because it doesn't treat them as white
 * space.
 */
const toRequest = (peer: string, forwardedFor: string) =>
  ({
    headers: { 'x-forwarded-for': forwardedFor.replaceAll('\t', ' ') },
    socket: { remoteAddress: peer },
  }) as unknown as Request

const isAddress = (text: string) => text.length <= MAX_ADDRESS_LENGTH && isIP(text) !== 0

/** Converts an IPv4-mapped IPv6 address, which a dual-stack socket reports, to IPv4. */
function toPlain(address: string): string {
  const ipv4 = /^::ffff:(.*)$/i.exec(address)?.[1] ?? ''
  return isIP(ipv4) === 4 ? ipv4 : address
}
