import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto'
import { isAsymmetric } from '../../server/jwt/algorithms.ts'
import { formatKid } from '../../server/jwt/kid.ts'
import { openDataKey, openSigningKey, readRecords } from '../../server/keys/customer-keys.ts'
import { encode } from '../crypto/mutate.ts'
import { TYPE } from './forge.ts'
import { type Alg, asymmetric } from './local.ts'
import { type Customer, claimsOf, type Replica, type World } from './world.ts'

/** Tokens that the holder of a customer's real private key could sign. */

export interface PairHalves {
  kid: string
  state: string
  alg: Alg
  privateKey: KeyObject
  publicKey: KeyObject
}

/** A customer's key pairs, decrypted with the master key as the server does it. */
export async function keyPairsOf(world: World, { id }: Pick<Customer, 'id'>): Promise<PairHalves[]> {
  const [row] = await readRecords(world.db, [id])
  const dataKey = openDataKey(world.keyRing, id, row!.sealedDataKey!)
  return row!.keys!.flatMap(([use, version, alg, state, sealed]) => {
    if (!isAsymmetric(alg)) return []
    const name = { customerId: id, use, version, alg }
    const bytes = openSigningKey(world.keyRing, dataKey, name, Buffer.from(sealed, 'base64'))
    return { kid: formatKid(world.keyRing.installationKey, name), state, alg, ...halves(bytes) }
  })
}

/** `bytes`: the UTF-8 of a private JWK. */
export function halves(bytes: Uint8Array): Pick<PairHalves, 'privateKey' | 'publicKey'> {
  const jwk = JSON.parse(Buffer.from(bytes).toString())
  if (jwk.d === undefined) throw new Error('only the public half is kept')
  const privateKey = createPrivateKey({ key: jwk, format: 'jwk' })
  return { privateKey, publicKey: createPublicKey(privateKey) }
}

const HASH = { EdDSA: null, ES256: 'sha256', RS256: 'sha256' } as const

/** A signature in the format of a JWS (RFC 7518 3.3, 3.4, RFC 8037 3.1). */
export const signatureOf = (input: string, alg: Alg, key: KeyObject): Buffer =>
  sign(HASH[alg], Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })

/** Two segments with a signature. */
export const withSignature = (input: string, signature: Uint8Array) =>
  `${input}.${Buffer.from(signature).toString('base64url')}`

export type PairForger = Awaited<ReturnType<typeof pairForger>>

/** A customer whose access tokens have asymmetric signatures, its private keys, and a token signed with the first one. */
export async function pairForger(world: World, replica: Replica, alg: Alg) {
  const customer = await asymmetric(replica, alg)
  const pairs = await keyPairsOf(world, customer)
  const current = pairs.find(({ state }) => state === 'current')!
  const next = pairs.find(({ state }) => state === 'next')!
  const token: string = (await customer.session()).access_token
  const [headerSegment = '', claimsSegment = '', signature = ''] = token.split('.')
  const header = { alg, typ: TYPE.access, kid: current.kid }
  const claims = claimsOf(token) as Record<string, unknown>
  /** Signs segments with any key. */
  const segments = (head: string, body: string, key = current.privateKey) =>
    withSignature(`${head}.${body}`, signatureOf(`${head}.${body}`, alg, key))
  const object = (value: object) => encode(JSON.stringify(value))
  return {
    alg,
    customer,
    current,
    next,
    token,
    header,
    claims,
    headerSegment,
    claimsSegment,
    input: `${headerSegment}.${claimsSegment}`,
    signature: Buffer.from(signature, 'base64url'),
    segments,
    withHeader: (more: object, key?: KeyObject) =>
      segments(object({ ...header, ...more }), claimsSegment, key),
    withClaims: (more: object, key?: KeyObject) =>
      segments(headerSegment, object({ ...claims, ...more }), key),
    texts: (more: object, claimed: object, key?: KeyObject) =>
      segments(object({ ...header, ...more }), object({ ...claims, ...claimed }), key),
  }
}
