import { createPrivateKey, hkdfSync } from 'node:crypto'

/** RFC 8410 7: everything of a private Ed25519 key in PKCS #8 but its 32 bytes. */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex')

/**
 * The key pair of the installation. It is derived from the installation key, so that all replicas and a restored database have
 * the same one. Returns the UTF-8 of its private JWK.
 */
export function installationKeyPair(installationKey: Uint8Array): Uint8Array {
  const seed = Buffer.from(hkdfSync('sha256', installationKey, '', 'assay introspection key', 32))
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, seed]), format: 'der', type: 'pkcs8' })
  return Buffer.from(JSON.stringify(key.export({ format: 'jwk' })))
}
