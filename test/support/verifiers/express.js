import { once } from 'node:events'
import express from 'express'
import { auth } from 'express-oauth2-jwt-bearer'
import { serveVerifier } from './serve-verifier.ts'

/** JavaScript, because Express has no types of its own. */
await serveVerifier(async ({ issuer, audience }) => {
  const app = express()
  app.use(auth({ issuerBaseURL: issuer, audience }))
  app.get('/orders', (request, response) => response.json(request.auth.payload.sub))
  // Without it, Express writes each refusal to stderr.
  app.use((error, _request, response, _next) => response.status(error.status).set(error.headers).end())
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return token => ask(`http://127.0.0.1:${server.address().port}/orders`, token)
})

async function ask(url, token) {
  const answer = await fetch(url, { headers: { Authorization: `Bearer ${token}` } })
  await answer.text()
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.headers.get('www-authenticate')}`)
}
