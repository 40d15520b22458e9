import { announced, byHttp, type Contender } from './contender.ts'
import { createDatabase } from './database.ts'
import { installPeers } from './install_peers.ts'
import { once } from './once.ts'

/** Alternatives to Assay, each in its fastest documented setup, which bench/peers describes. */
export function peers(postgres: string): Contender[] {
  const peer = (file: string, env: () => Promise<Record<string, string>> = async () => ({})) => {
    const started = once(async () => {
      await installPeers()
      return announced(`peers/${file}`, await env())
    })
    return (name: string, plan: string) =>
      byHttp(name, async () => {
        const target = await started()
        return { target, plan: target.plans[plan]! }
      })
  }
  const oidc = peer('oidc_provider.js')
  const better = peer('better_auth.js')
  const node = peer('node_oauth.js')
  const replaced = peer('replaced.js', async () => ({ DATABASE_URL: await createDatabase(postgres) }))
  return [
    oidc('oidc-provider, introspection', 'introspect'),
    oidc('oidc-provider, client_credentials', 'client_credentials'),
    oidc('oidc-provider, refresh', 'refresh'),
    better('better-auth, session by HTTP', 'session'),
    better('better-auth, session by its API', 'session_by_api'),
    node('@node-oauth/oauth2-server, authenticate', 'authenticate'),
    node('@node-oauth/oauth2-server, client_credentials', 'client_credentials'),
    replaced('jsonwebtoken and a query', 'verify'),
  ]
}
