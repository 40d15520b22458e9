/**
 * @node-oauth/oauth2-server as its documentation uses it without a framework, here on bare node:http, with an in-memory model.
 * The model generates its own tokens, through a documented hook, because the default uses the thread pool for 32 random bytes.
 */
import './production.js'

import { randomBytes } from 'node:crypto'
import OAuth2Server from '@node-oauth/oauth2-server'
import { accessTokens, announce, DAY, form, listen, withBearer } from './peer.js'
import { Store, seal } from './store.js'

const CLIENT = { id: 'bench', secret: 'a-secret-of-the-confidential-client' }

const client = { id: CLIENT.id, grants: ['client_credentials'] }
const user = { id: 'bench' }
const tokens = new Store()

const oauth = new OAuth2Server({
  accessTokenLifetime: DAY,
  model: {
    getClient: (id, secret) => id === CLIENT.id && secret === CLIENT.secret && client,
    getUserFromClient: () => user,
    generateAccessToken: () => randomBytes(32).toString('base64url'),
    getAccessToken: token => tokens.get(token),
    saveToken(token, client, user) {
      const saved = { ...token, client, user }
      tokens.set(token.accessToken, saved)
      return saved
    },
  },
})

async function answer(request) {
  const { headers, method, url } = request
  const response = new OAuth2Server.Response()
  if (url === '/token') {
    const body = Object.fromEntries(new URLSearchParams(await textOf(request)))
    await oauth.token(new OAuth2Server.Request({ headers, method, query: {}, body }), response)
    return response
  }
  const token = await oauth.authenticate(new OAuth2Server.Request({ headers, method, query: {} }), response)
  response.body = { user: token.user.id, client: token.client.id }
  return response
}

function textOf(request) {
  return new Promise((resolve, reject) => {
    let text = ''
    request
      .setEncoding('utf8')
      .on('data', chunk => {
        text += chunk
      })
      .on('end', () => resolve(text))
      .on('error', reject)
  })
}

const refused = ({ code, name }) => ({ status: code ?? 500, headers: {}, body: { error: name } })

const port = await listen(async (request, response) => {
  const { status, headers, body } = await answer(request).catch(refused)
  const json = JSON.stringify(body)
  response
    .writeHead(status, {
      ...headers,
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(json),
    })
    .end(json)
})

const issue = form('/token', CLIENT, 'grant_type=client_credentials')
const accesses = await accessTokens(port, issue)
seal()

announce(port, {
  authenticate: {
    requests: accesses.map(token => withBearer('/', token)),
    status: 200,
    contains: '"user":"bench"',
  },
  client_credentials: { requests: [issue], status: 200, contains: '"access_token":' },
})
