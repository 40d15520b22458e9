import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose'
import { ALICE, bearer, type Customer, claimsOf, type Replica } from './world.ts'

/** Customers whose access tokens can be verified offline, and one whose tokens can't. */

export const ALGORITHMS = ['EdDSA', 'ES256', 'RS256'] as const
export type Alg = (typeof ALGORITHMS)[number]

/** How long the next key is published before it signs (ms). */
export const PUBLISHED_AHEAD_MS = 1_800_000

export async function asymmetric(assay: Replica, alg: Alg, policy: object = {}): Promise<Customer> {
  const customer = await assay.signUp()
  await assay.setPolicy(customer.id, { signing_alg: alg, ...policy })
  return customer
}

export const headerOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString())

/** The path of a URL of this server. */
export const pathOf = (address: string) => new URL(address).pathname

export const jwksOf = async (assay: Replica, token: string): Promise<JSONWebKeySet> => {
  const { status, json } = await assay.get(pathOf(`${claimsOf(token).iss}/jwks.json`))
  if (status !== 200) throw new Error(`the JWKS was answered ${status}`)
  return json
}

/** Whether jose accepts the token with these keys. */
export const accepts = async (jwks: JSONWebKeySet, token: string): Promise<boolean> => {
  const { iss } = claimsOf(token)
  return jwtVerify(token, createLocalJWKSet(jwks), { issuer: iss, typ: 'at+jwt' }).then(
    () => true,
    () => false,
  )
}

export const rotate = (assay: Replica, { id }: Pick<Customer, 'id'>, body: object = { use: 'access' }) =>
  assay.postJson(`/admin/customers/${id}/secrets/rotate`, body, bearer(ALICE))
