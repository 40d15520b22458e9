import { createServer } from 'node:http'

/** How many tokens a plan goes round. */
export const TOKENS = 64

/** How many refresh chains run side by side. */
export const CHAINS = 1_024

/** Longer than any run (s): nothing that was prepared expires under load. */
export const DAY = 86_400

export async function listen(listener) {
  const server = createServer(listener)
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return server.address().port
}

/** The one line that the benchmark waits for. */
export const announce = (port, plans) => process.stdout.write(`${JSON.stringify({ port, plans })}\n`)

/** A form sent by a confidential client (client_secret_basic). */
export const form = (path, { id, secret }, body) => ({
  method: 'POST',
  path,
  headers: {
    Authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
    'Content-Type': 'application/x-www-form-urlencoded',
  },
  body,
})

export const withBearer = (path, token) => ({
  method: 'GET',
  path,
  headers: { Authorization: `Bearer ${token}` },
})

/** Access tokens from the peer itself, by the request that the load will send too. */
export const accessTokens = (port, { path, ...request }) =>
  Promise.all(
    Array.from({ length: TOKENS }, async () => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, request)
      return (await response.json()).access_token
    }),
  )
