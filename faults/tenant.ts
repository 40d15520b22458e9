import { randomInt } from 'node:crypto'
import type { Stage } from './stage.ts'

/** A separate customer, which can end all its tokens without ending those of the load. */
export type Tenant = Awaited<ReturnType<typeof signUp>>

export async function signUp({ replicas: [first] }: Pick<Stage, 'replicas'>) {
  async function post(path: string, body: object, token?: string) {
    const response = await fetch(first.process.url + path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(token && { Authorization: `Bearer ${token}` }) },
      body: JSON.stringify(body),
    })
    if (!response.ok) throw new Error(`${path} answered ${response.status}`)
    return (await response.json()) as Record<string, string>
  }

  const email = `${randomInt(2 ** 40)}@example.com`
  const account = await post('/api/auth/signup', { email, password: 'a long password' })
  const apiKey = account.api_key!
  let refreshToken = account.refresh_token!

  return {
    apiKey,
    issue: async () => (await post('/issue', {}, apiKey)).access_token!,
    /** Ends every access token, including this account's. Returns the status. */
    async rotateNow() {
      const fresh = await post('/api/auth/refresh', { refresh_token: refreshToken })
      refreshToken = fresh.refresh_token!
      await post('/api/secrets/rotate', { use: 'access', now: true }, fresh.access_token)
      return 200
    },
  }
}
