const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'

/**
 * Encodes as RFC 4648 base32, in lower case and without padding: safe in a URL, a log line and a kid, and
 * unambiguous when spoken.
 */
export function encodeBase32(bytes: Uint8Array): string {
  let text = ''
  let pending = 0
  let bits = 0
  for (const byte of bytes) {
    // At most 4 bits are pending from the previous byte; higher bits have been written and are dropped.
    pending = ((pending << 8) | byte) & 0xfff
    bits += 8
    for (; bits >= 5; bits -= 5) text += ALPHABET[(pending >>> (bits - 5)) & 31]
  }
  return bits === 0 ? text : text + ALPHABET[(pending << (5 - bits)) & 31]
}
