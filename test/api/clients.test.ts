import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { basicPair, checkedFetch, makeDiscoverable } from '../support/foreign.ts'
import { type Customer, claimsOf, makeWorld, type Replica, SERVICE, type World } from '../support/world.ts'

/** Unmodified clients over real HTTP, using only their documented options. */

let world: World
let assay: Replica
let issuer: string
let customer: Customer
let checked: ReturnType<typeof checkedFetch>

beforeAll(async () => {
  world = await makeWorld()
  ;({ assay, issuer } = await makeDiscoverable(world))
  customer = await assay.signUp()
})
afterAll(() => world.stop())
beforeEach(async () => {
  await assay.serve()
  checked = checkedFetch()
})

describe('oauth4webapi', () => {
  const options = () => ({ [oauth.customFetch]: checked, [oauth.allowInsecureRequests]: true })

  async function discover(algorithm: 'oauth2' | 'oidc' = 'oauth2') {
    const response = await oauth.discoveryRequest(new URL(issuer), { ...options(), algorithm })
    return oauth.processDiscoveryResponse(new URL(issuer), response)
  }

  async function clientCredentials(client: oauth.Client, auth: oauth.ClientAuth, scope = 'read') {
    const as = await discover()
    const response = await oauth.clientCredentialsGrantRequest(as, client, auth, { scope }, options())
    return oauth.processClientCredentialsResponse(as, client, response)
  }

  async function refresh(token: string, client: oauth.Client, auth: oauth.ClientAuth) {
    const as = await discover()
    const response = await oauth.refreshTokenGrantRequest(as, client, auth, token, options())
    return oauth.processRefreshTokenResponse(as, client, response)
  }

  async function introspect(token: string, client: oauth.Client, auth: oauth.ClientAuth) {
    const as = await discover()
    const response = await oauth.introspectionRequest(as, client, auth, token, options())
    return oauth.processIntrospectionResponse(as, client, response)
  }

  async function revoke(token: string, client: oauth.Client, auth: oauth.ClientAuth) {
    const response = await oauth.revocationRequest(await discover(), client, auth, token, options())
    return oauth.processRevocationResponse(response)
  }

  const me = () => ({ client_id: customer.id })
  const gateway = { client_id: SERVICE.id }

  test.each(['oauth2', 'oidc'] as const)('discovers the server (%s)', async algorithm => {
    const as = await discover(algorithm)
    expect(as.issuer).toBe(issuer)
    expect(checked.sent.map(({ path }) => path)).toEqual([
      `/.well-known/${algorithm === 'oidc' ? 'openid-configuration' : 'oauth-authorization-server'}`,
    ])
  })

  test('discovers a server whose issuer has a path, at the one address defined by RFC 8414 3.1', async () => {
    const path = 'https://example.com/auth/tenant'
    const replica = await world.replica({ ISSUER: path })
    const url = new URL(path)
    const asked: string[] = []
    const fetchMetadata = async (at: string) => {
      asked.push(new URL(at).pathname)
      return replica.app.request(new URL(at).pathname)
    }
    const response = await oauth.discoveryRequest(url, {
      algorithm: 'oauth2',
      [oauth.customFetch]: fetchMetadata,
    })
    expect((await oauth.processDiscoveryResponse(url, response)).issuer).toBe(path)
    const root = '/.well-known/oauth-authorization-server'
    expect(asked).toEqual([`${root}/auth/tenant`])
    expect((await replica.get(root)).json.issuer).toBe(path)
    for (const other of ['/auth', '/auth/tenant/', '/auth/tenant/x', '/auth%2Ftenant', '/Auth/tenant', '/'])
      expect((await replica.get(`${root}${other}`)).status, other).toBe(404)
    expect((await fetchMetadata(`http://assay.test${root}/auth/tenant`)).status).toBe(200)
  })

  test('gets a token by client_secret_basic, where it encodes even underscores', async () => {
    const token = await clientCredentials(me(), oauth.ClientSecretBasic(customer.apiKey))
    expect(basicPair(checked.sent.at(-1)!)).toEqual([customer.id, customer.apiKey.replaceAll('_', '%5F')])
    expect(token).toMatchObject({ token_type: 'bearer', expires_in: 300 })
    expect(token).not.toHaveProperty('refresh_token')
    expect(claimsOf(token.access_token)).toMatchObject({ iss: issuer, sub: customer.id, scope: 'read' })
    expect((await assay.verify(token.access_token)).status).toBe(200)
  })

  test('gets a token by client_secret_post', async () => {
    const token = await clientCredentials(me(), oauth.ClientSecretPost(customer.apiKey))
    expect(checked.sent.at(-1)!.headers.has('authorization')).toBe(false)
    expect((await assay.verify(token.access_token)).status).toBe(200)
  })

  test.each([
    ['with client_secret_basic', () => oauth.ClientSecretBasic(customer.apiKey)],
    ['with client_secret_post', () => oauth.ClientSecretPost(customer.apiKey)],
    ['as a public client', () => oauth.None()],
  ])('refreshes %s', async (_, auth) => {
    const { refresh_token, session_id } = await customer.session()
    const refreshed = await refresh(refresh_token, me(), auth())
    expect(refreshed.refresh_token).not.toBe(refresh_token)
    expect(claimsOf(refreshed.access_token)).toMatchObject({ sub: 'user-1', sid: session_id })
  })

  test.each([
    ['a customer', me, () => oauth.ClientSecretBasic(customer.apiKey)],
    ['a service, Basic', () => gateway, () => oauth.ClientSecretBasic(SERVICE.secret)],
    ['a service, form', () => gateway, () => oauth.ClientSecretPost(SERVICE.secret)],
  ])('introspects as %s', async (_, client, auth) => {
    const { access_token } = await customer.session()
    const { iat, exp } = claimsOf(access_token)
    const about = { active: true, client_id: customer.id, sub: 'user-1', scope: 'read write', iat, exp }
    expect(await introspect(access_token, client(), auth())).toMatchObject(about)
    expect(await introspect('nonsense', client(), auth())).toEqual({ active: false })
  })

  test('revokes an access token, and then a session by its refresh token', async () => {
    const auth = oauth.ClientSecretBasic(customer.apiKey)
    const { access_token, refresh_token } = await customer.session()
    expect(await revoke(access_token, me(), auth)).toBeUndefined()
    expect(await introspect(access_token, me(), auth)).toEqual({ active: false })
    const refreshed = await refresh(refresh_token, me(), auth)
    expect(await revoke(refreshed.refresh_token!, me(), auth)).toBeUndefined()
    expect((await assay.verify(refreshed.access_token)).status).toBe(401)
  })

  test('gets the challenge for a wrong secret, however it was sent', async () => {
    for (const auth of [oauth.ClientSecretBasic('wrong'), oauth.ClientSecretPost('wrong')]) {
      const error = await clientCredentials(me(), auth).catch(error => error)
      expect(error).toBeInstanceOf(oauth.WWWAuthenticateChallengeError)
      expect(error.status).toBe(401)
      expect(error.cause).toMatchObject([{ scheme: 'basic', parameters: { realm: 'assay' } }])
    }
  })

  test('gets invalid_grant for a revoked refresh token', async () => {
    const auth = oauth.ClientSecretBasic(customer.apiKey)
    const { refresh_token } = await customer.session()
    await revoke(refresh_token, me(), auth)
    const error = await refresh(refresh_token, me(), auth).catch(error => error)
    expect(error).toBeInstanceOf(oauth.ResponseBodyError)
    expect(error).toMatchObject({ error: 'invalid_grant', status: 400 })
    expect(error.error_description).toMatch(/^[\x20-\x7e]+$/)
  })

  test('gets an error for a scope that its key may not grant', async () => {
    const scopes = { name: 'narrow', scopes: ['read'] }
    const made = await assay.postJson('/api/keys', scopes, {
      Authorization: `Bearer ${customer.accessToken}`,
    })
    const auth = oauth.ClientSecretBasic(made.json.api_key)
    expect((await clientCredentials(me(), auth, 'read')).access_token).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/)
    const error = await clientCredentials(me(), auth, 'write').catch(error => error)
    expect(error).toMatchObject({ error: 'invalid_scope', status: 400 })
  })
})

describe('openid-client', () => {
  const discover = (auth?: openid.ClientAuth, [id, secret] = [customer.id, customer.apiKey], more = {}) =>
    openid.discovery(new URL(issuer), id, secret, auth, {
      execute: [openid.allowInsecureRequests],
      [openid.customFetch]: checked,
      ...more,
    })

  test.each([
    ['openid-configuration', {}],
    ['oauth-authorization-server', { algorithm: 'oauth2' }],
  ])('discovers the server at %s', async (file, more) => {
    const config = await discover(undefined, undefined, more)
    expect(config.serverMetadata().issuer).toBe(issuer)
    expect(checked.sent.map(({ path }) => path)).toEqual([`/.well-known/${file}`])
  })

  test('gets, introspects and revokes a token with its default settings', async () => {
    const config = await discover()
    const token = await openid.clientCredentialsGrant(config, { scope: 'read' })
    expect(token.expiresIn()).toBeGreaterThan(290)
    const about = { active: true, client_id: customer.id, scope: 'read', token_type: 'Bearer' }
    expect(await openid.tokenIntrospection(config, token.access_token)).toMatchObject(about)
    await openid.tokenRevocation(config, token.access_token)
    expect(await openid.tokenIntrospection(config, token.access_token)).toEqual({ active: false })
  })

  test.each([
    ['client_secret_basic', () => openid.ClientSecretBasic(customer.apiKey)],
    ['client_secret_post', () => openid.ClientSecretPost(customer.apiKey)],
    ['no secret', () => openid.None()],
  ])('refreshes with %s, again and again', async (_, auth) => {
    const config = await discover(auth())
    const { refresh_token, access_token } = await customer.session()
    const second = await openid.refreshTokenGrant(config, refresh_token)
    const third = await openid.refreshTokenGrant(config, second.refresh_token!, { scope: 'read' })
    expect(new Set([refresh_token, second.refresh_token, third.refresh_token]).size).toBe(3)
    expect(third.scope).toBe('read')
    for (const token of [access_token, third.access_token])
      expect((await assay.verify(token)).status).toBe(200)
  })

  test('introspects as a service, to which no refresh token is active', async () => {
    const { id, secret } = SERVICE
    const config = await discover(openid.ClientSecretBasic(secret), [id, secret])
    const { access_token, refresh_token } = await customer.session()
    expect(await openid.tokenIntrospection(config, access_token)).toMatchObject({
      active: true,
      sub: 'user-1',
    })
    expect(await openid.tokenIntrospection(config, refresh_token)).toEqual({ active: false })
  })

  test('gets errors for a wrong secret and for a revoked refresh token', async () => {
    const wrong = await discover(undefined, [customer.id, 'wrong'])
    const refused = await openid.clientCredentialsGrant(wrong).catch(error => error)
    expect(refused).toBeInstanceOf(openid.WWWAuthenticateChallengeError)
    expect(refused.status).toBe(401)
    const config = await discover()
    const { refresh_token } = await customer.session()
    await openid.tokenRevocation(config, refresh_token)
    const revoked = await openid.refreshTokenGrant(config, refresh_token).catch(error => error)
    expect(revoked).toBeInstanceOf(openid.ResponseBodyError)
    expect(revoked).toMatchObject({ error: 'invalid_grant', status: 400 })
  })
})
