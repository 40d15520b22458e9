import { createLocalJWKSet, jwtVerify } from 'jose'
import * as oauth from 'oauth4webapi'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asymmetric, headerOf, pathOf } from '../support/local.ts'
import {
  basic,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** RFC 9701: the introspection answer as a JWT that its receiver can keep. */

let world: World
let here: Replica
let there: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
  customer = await here.signUp()
})
afterAll(() => world.stop())

const TYPE = 'application/token-introspection+jwt'
const GATEWAY = basic(SERVICE.id, SERVICE.secret)

const introspect = (token: string, authorization = GATEWAY, accept = TYPE, assay = here) =>
  assay.postForm('/introspect', { token }, { Authorization: authorization, Accept: accept })

/** The verified claims of a signed answer. */
async function claimsIn(text: string, audience: string) {
  const { json } = await there.get('/.well-known/jwks.json')
  const options = { issuer: world.config.issuer, audience, typ: 'token-introspection+jwt' }
  return (await jwtVerify(text, createLocalJWKSet(json), options)).payload
}

test('the answer is a JWT signed by the installation for the caller, with the members of an unsigned one', async () => {
  const { access_token } = await customer.session()
  const before = Math.floor(here.changeFeed.now() / 1000)
  const { headers, text } = await introspect(access_token)
  expect(headers.get('content-type')).toBe(TYPE)
  expect(headers.get('cache-control')).toBe('no-store')
  const claims = await claimsIn(text, SERVICE.id)
  expect(Object.keys(claims).sort()).toEqual(['aud', 'iat', 'iss', 'token_introspection'])
  expect(claims.token_introspection).toEqual((await here.introspect(access_token)).json)
  expect(claims.iat).toBeGreaterThanOrEqual(before)
  expect(claims.iat).toBeLessThanOrEqual(Math.ceil(here.changeFeed.now() / 1000))
})

test('for an API key the audience is its customer, and an inactive token has no other member', async () => {
  const other = await here.signUp()
  const { access_token } = await customer.session()
  const own = await claimsIn((await introspect(access_token, `Bearer ${customer.apiKey}`)).text, customer.id)
  expect(own.token_introspection).toMatchObject({ active: true, client_id: customer.id })
  const foreign = await claimsIn((await introspect(access_token, `Bearer ${other.apiKey}`)).text, other.id)
  expect(foreign.token_introspection).toEqual({ active: false })
})

test('all replicas sign with one key, which signs nothing else', async () => {
  const { access_token } = await customer.session()
  const [one, two] = [await introspect(access_token), await introspect(access_token, GATEWAY, TYPE, there)]
  expect(headerOf(one.text)).toEqual(headerOf(two.text))
  const own = await asymmetric(here, 'EdDSA')
  const token = (await own.issue()).json.access_token
  const keys = (await here.get(pathOf(`${claimsOf(token).iss}/jwks.json`))).json.keys
  expect(keys.map(({ kid }: { kid: string }) => kid)).not.toContain(headerOf(one.text).kid)
})

test('a signed answer is not accepted as a token, nor a token as a signed answer', async () => {
  const { access_token } = await customer.session()
  const { text } = await introspect(access_token)
  expect((await here.verify(text)).status).toBe(401)
  expect((await here.introspect(text)).json).toEqual({ active: false })
  await expect(claimsIn(access_token, SERVICE.id)).rejects.toThrow()
})

test('JSON is the default, and errors are always JSON', async () => {
  const { access_token } = await customer.session()
  for (const accept of ['application/json', '*/*'])
    expect((await introspect(access_token, GATEWAY, accept)).json.active).toBe(true)
  const refused = await introspect(access_token, basic(SERVICE.id, 'x'.repeat(40)))
  expect([refused.status, refused.json.error]).toEqual([401, 'invalid_client'])
})

test('oauth4webapi accepts it', async () => {
  const { access_token } = await customer.session()
  const metadata = (await here.get('/.well-known/oauth-authorization-server')).json
  const fetch = async (url: unknown, init?: object) => {
    const { status, headers, text } = await here.request(pathOf(String(url)), init as never)
    return new Response(text, { status, headers })
  }
  const options = {
    [oauth.customFetch]: fetch,
    [oauth.allowInsecureRequests]: true,
    requestJwtResponse: true,
  }
  const client = { client_id: SERVICE.id }
  const auth = oauth.ClientSecretBasic(SERVICE.secret)
  const response = await oauth.introspectionRequest(metadata, client, auth, access_token, options)
  const answer = await oauth.processIntrospectionResponse(metadata, client, response)
  await oauth.validateApplicationLevelSignature(metadata, response, options)
  expect(answer.active).toBe(true)
})
