/**
 * oidc-provider as its documentation mounts it on node:http (`provider.callback()`), with opaque tokens, which are its default
 * and its fastest format because nothing is signed. The refresh scope has no `openid`, which would add an ID token to sign.
 * Features that would check these requests in vain are off.
 *
 * Its own in-memory adapter is meant for development: an LRU of 1,000 entries, which would lose live refresh tokens, with an
 * index by grant that is scanned at every write. Instead, this adapter implements the documented interface with a Map per model.
 * Expiry needs no store, because the provider checks `exp` itself.
 */
import './production.js'

import { generateKeyPairSync } from 'node:crypto'
import Provider from 'oidc-provider'
import { accessTokens, announce, CHAINS, DAY, form, listen } from './peer.js'
import { Store, seal } from './store.js'

/** Has no findByUid and findByUserCode, because the load uses no sessions and no device codes. */
class Adapter {
  #entries = new Store()

  async upsert(id, payload) {
    this.#entries.set(id, payload)
  }

  async find(id) {
    return this.#entries.get(id)
  }

  async consume(id) {
    this.#entries.get(id).consumed = Math.floor(Date.now() / 1000)
  }

  async destroy(id) {
    this.#entries.delete(id)
  }

  /** Only called after a refresh token was used twice, which the load does not do, so it needs no index. */
  async revokeByGrantId(grantId) {
    for (const [id, payload] of this.#entries) if (payload.grantId === grantId) this.#entries.delete(id)
  }
}

const CLIENT = { id: 'bench', secret: 'a-secret-of-the-confidential-client' }

const provider = new Provider('http://localhost', {
  adapter: Adapter,
  clients: [
    {
      client_id: CLIENT.id,
      client_secret: CLIENT.secret,
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['authorization_code', 'client_credentials', 'refresh_token'],
      redirect_uris: ['https://client.example/callback'],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  jwks: { keys: [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })] },
  cookies: { keys: ['a-key-for-cookies-that-nobody-gets'] },
  scopes: ['offline_access', 'read'],
  rotateRefreshToken: true,
  findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  ttl: { AccessToken: DAY, ClientCredentials: DAY, Grant: DAY, RefreshToken: DAY },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    devInteractions: { enabled: false },
    dPoP: { enabled: false },
    resourceIndicators: { enabled: false },
  },
})

async function refreshToken(client, accountId) {
  const scope = 'offline_access read'
  const grant = new provider.Grant({ accountId, clientId: CLIENT.id })
  grant.addOIDCScope(scope)
  const grantId = await grant.save()
  return new provider.RefreshToken({ accountId, client, grantId, gty: 'authorization_code', scope }).save()
}

const port = await listen(provider.callback())
const issue = form('/token', CLIENT, 'grant_type=client_credentials&scope=read')
const tokens = await accessTokens(port, issue)
const client = await provider.Client.find(CLIENT.id)
const chains = await Promise.all(
  Array.from({ length: CHAINS }, (_, i) => refreshToken(client, `account-${i}`)),
)
seal()

announce(port, {
  introspect: {
    // The hint avoids one of three look-ups in the provider.
    requests: tokens.map(token =>
      form('/token/introspection', CLIENT, `token=${token}&token_type_hint=access_token`),
    ),
    status: 200,
    contains: '"active":true',
  },
  client_credentials: { requests: [issue], status: 200, contains: '"access_token":' },
  refresh: {
    requests: chains.map(next => ({
      ...form('/token', CLIENT, 'grant_type=refresh_token&refresh_token={next}'),
      next,
    })),
    status: 200,
    contains: '"refresh_token":',
    follow: { member: 'refresh_token' },
  },
})
