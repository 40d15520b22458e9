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
  readonly #warned = new Set<string>()

  /** `ranges`: addresses and CIDR ranges, already validated. */
  constructor(ranges: string[], log: Log) {
    const isInRange = proxyaddr.compile(ranges)
    // The library reads `1` and `0x7f.1` as IPv4 addresses.
    this.#isTrusted = (hop, index) => {
      const address = withoutPort(hop)
      return index < MAX_HOPS && isAddress(address) && isInRange(address, index)
    }
    this.#trustsAny = ranges.length > 0
    this.#log = log
  }

  /**
   * `peer`: the address of the connection. If a proxy reports something that isn't an address, returns the
   * proxy's.
   */
  clientIp(peer: string | undefined, forwardedFor: string | undefined): string | undefined {
    if (forwardedFor !== undefined && !this.#trustsAny) this.#warn(NO_TRUSTED_PROXY)
    if (peer === undefined || forwardedFor === undefined) return peer && toPlain(peer)
    const path = proxyaddr.all(toRequest(peer, forwardedFor), this.#isTrusted).map(withoutPort)
    if (!isAddress(path.at(-1) ?? peer)) this.#warn(NOT_AN_ADDRESS)
    return toPlain(path.findLast(isAddress) ?? peer)
  }

  /** Warns once: a setting or a proxy is to blame, and not the request. */
  #warn(problem: string) {
    if (this.#warned.has(problem)) return
    this.#warned.add(problem)
    this.#log.warn(problem)
  }
}

const NO_TRUSTED_PROXY =
  "requests have X-Forwarded-For, but TRUST_PROXY is empty, so the audit and the rate limits see only the proxy's address; set TRUST_PROXY to it"
const NOT_AN_ADDRESS =
  "a trusted proxy sends an X-Forwarded-For that is not an IP address with or without a port, so the audit and the rate limits see only the proxy's address; make it send the client's address"

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

/**
 * Azure's Application Gateway sends `203.0.113.8:51234`, and others `[2001:db8::9]:443`. An IPv6 address with a port has
 * brackets.
 */
const WITH_PORT = /^(?:([\d.]+):\d{1,5}|\[([^\]]+)\](?::\d{1,5})?)$/

function withoutPort(hop: string): string {
  const [, ipv4, ipv6] = WITH_PORT.exec(hop) ?? []
  return ipv4 ?? ipv6 ?? hop
}

const isAddress = (text: string) => text.length <= MAX_ADDRESS_LENGTH && isIP(text) !== 0

/** Converts an IPv4-mapped IPv6 address, which a dual-stack socket reports, to IPv4. */
function toPlain(address: string): string {
  const ipv4 = /^::ffff:(.*)$/i.exec(address)?.[1] ?? ''
  return isIP(ipv4) === 4 ? ipv4 : address
}
