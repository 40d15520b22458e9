import { createServer } from 'node:http'

/** Number of different tokens in a plan. */
export const TOKENS = 64

/** Number of refresh chains in parallel. */
export const CHAINS = 1_024

/** Longer than any run, so no token expires under load (s). */
export const DAY = 86_400

export async function listen(listener) {
  const server = createServer(listener)
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return server.address().port
}

/** Prints the line that the benchmark waits for. */
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

/** Access tokens that the peer issues for the same request that the load sends. */
export const accessTokens = (port, { path, ...request }) =>
  Promise.all(
    Array.from({ length: TOKENS }, async () => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, request)
      return (await response.json()).access_token
    }),
  )
