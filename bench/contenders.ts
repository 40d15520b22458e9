import { type Assay, embedded, type Installation, install, onPostgres, settingsOf } from './assay.ts'
import { announced, byHttp, byRaw, CONNECTIONS, type Contender, startRaw } from './contender.ts'
import { installPeers } from './install_peers.ts'
import type { Target as Server } from './load.ts'
import { gatewayTo, saysYes } from './nginx.ts'
import * as plans from './plans.ts'
import { memoryOf } from './processes.ts'
import type { Customer } from './seed.ts'
import type { Target } from './targets.ts'

/** All that is running, and what is asked of it. */
export interface Stage {
  contenders: Contender[]
  /** Figures that no round measures. */
  figures: Target[]
}

/** The customers whose tokens are used. */
const HOT = 64
/** Never seen by a replica before: more than one round can ask for. */
const COLD = 24_000

export async function setStage(postgres: string): Promise<Stage> {
  installPeers()
  const installation = await install(postgres, HOT + COLD)
  const hot = installation.customers.slice(0, HOT)
  const cold = installation.customers.slice(HOT)
  // As most starts are: what was compiled at the first one is there.
  await (await onPostgres(installation.url)).stop()
  const assay = await onPostgres(installation.url)
  const idle = memoryOf(assay.pid)
  const inMemory = await embedded()
  const contenders = [
    ...(await verifying(assay, hot)),
    ...(await peers(installation)),
    ...(await throughNginx(assay, hot)),
    ...(await writing(assay, installation, hot)),
    uncached(installation, cold),
    ...(await workers(installation, hot)),
    ...(await onEmbedded(inMemory)),
  ]
  const figures = [
    figure('start to ready on Postgres, ms', assay.readyAfter, 500),
    figure('start to ready, embedded, ms', inMemory.readyAfter, 1_000),
    figure('resident memory, idle on Postgres, MB', idle, 130),
  ]
  return { contenders, figures }
}

const figure = (what: string, value: number, asked: number): Target => ({
  what,
  has: () => value,
  asked,
  most: true,
})

async function verifying(assay: Assay, hot: Customer[]): Promise<Contender[]> {
  const twins = await announced('servers/twins.ts')
  const tokens = plans.tokensOf(hot)
  return [
    byHttp('bare Hono, /verify', twins, plans.verify(tokens)),
    byHttp('verify, known key', assay, plans.verify(tokens)),
    byHttp('401, garbage', assay, plans.verifyGarbage()),
    byHttp('401, random kid', assay, plans.verifyRandomKid(hot)),
    byHttp('bare Hono, /introspect', twins, plans.introspect(tokens)),
    byHttp('introspect', assay, plans.introspect(tokens)),
    byHttp('introspect, batch of 100', assay, plans.introspectBatch(hot), {
      worth: plans.BATCH,
      counts: 'tokens',
    }),
  ]
}

/** In their fastest documented set-up; bench/peers says which. */
async function peers({ url }: Installation): Promise<Contender[]> {
  const oidc = await announced('peers/oidc_provider.js')
  const better = await announced('peers/better_auth.js')
  const node = await announced('peers/node_oauth.js')
  const replaced = await announced('peers/replaced.js', { DATABASE_URL: url })
  return [
    byHttp('oidc-provider, introspection', oidc, oidc.plans.introspect!),
    byHttp('oidc-provider, client_credentials', oidc, oidc.plans.client_credentials!),
    byHttp('oidc-provider, refresh', oidc, oidc.plans.refresh!),
    byHttp('better-auth, session by HTTP', better, better.plans.session!),
    byHttp('better-auth, session by its API', better, better.plans.session_by_api!),
    byHttp('@node-oauth/oauth2-server, authenticate', node, node.plans.authenticate!),
    byHttp('@node-oauth/oauth2-server, client_credentials', node, node.plans.client_credentials!),
    byHttp('jsonwebtoken and a query', replaced, replaced.plans.verify!),
  ]
}

async function throughNginx(assay: Server, hot: Customer[]): Promise<Contender[]> {
  const [static_, toAssay] = [await gatewayTo((await saysYes()).port), await gatewayTo(assay.port)]
  const plan = { ...plans.verify(plans.tokensOf(hot)), header: 'X-Granted-To' }
  return [byHttp('nginx and a static nginx', static_, plan), byHttp('verify, through nginx', toAssay, plan)]
}

/** Sessions that are refreshed, each by one caller at a time. */
const SESSIONS = 2_048

async function writing(assay: Assay, installation: Installation, hot: Customer[]): Promise<Contender[]> {
  const ids = hot.map(({ id }) => id)
  const raw = await startRaw('servers/raw.ts', ids, { DATABASE_URL: installation.url })
  const inProcess = await startRaw('servers/revoking.ts', hot, settingsOf(installation.url))
  return [
    byRaw('postgres.js, issue', raw, 'issue'),
    byHttp('issue', assay, plans.issue(hot)),
    byHttp('client_credentials', assay, plans.clientCredentials(hot)),
    byRaw('postgres.js, refresh', raw, 'refresh'),
    byHttp('refresh', assay, await plans.refresh(assay.port, hot, SESSIONS)),
    byHttp('login', assay, plans.logIn(hot)),
    byRaw('postgres.js, select', raw, 'select'),
    revoking(assay, installation, hot),
    byRaw('revoke, 100 callers in its process', inProcess, 'revoke', { callers: 100, counts: 'answers' }),
  ]
}

/** More than a round can revoke. */
const REVOCATIONS = 40_000

/** New tokens each round. An answer is the same for a token that is none: the change feed tells how many were revoked. */
function revoking(assay: Server, { query }: Installation, hot: Customer[]): Contender {
  const name = 'revoke, 100 callers'
  const numbers = async () =>
    Number(((await query('select seq from assay.change_feed')) as { seq: string }[])[0]!.seq)
  return {
    name,
    counts: 'answers',
    async round(seconds) {
      const plan = plans.revoke(hot, REVOCATIONS)
      const before = await numbers()
      const sample = await byHttp(name, assay, plan, { connections: 100 }).round(seconds)
      const revoked = (await numbers()) - before
      if (revoked < sample.rate * seconds) throw new Error(`${name}: only ${revoked} were revoked`)
      return sample
    },
  }
}

/**
 * A replica started for the round, so that each token is of a customer that it must read first. Its code is warm, as that of
 * every contender is: with the tokens of a third of these customers, who are not asked for again.
 */
function uncached({ url }: Installation, cold: Customer[]): Contender {
  const name = 'verify, key not cached'
  const third = cold.length / 3
  const verify = (some: Customer[]) => plans.verify(plans.tokensOf(some, some.length))
  const [warmUp, plan] = [verify(cold.slice(0, third)), verify(cold.slice(third))]
  return {
    name,
    counts: 'answers',
    async round(seconds) {
      const assay = await onPostgres(url)
      await byHttp(name, assay, warmUp).round(1)
      const sample = await byHttp(name, assay, plan).round(seconds)
      await assay.stop()
      if (sample.rate * seconds > cold.length - third) throw new Error(`${name}: more answers than customers`)
      return sample
    },
  }
}

async function workers({ url }: Installation, hot: Customer[]): Promise<Contender[]> {
  const two = await onPostgres(url, { WORKERS: '2' })
  return [
    byHttp('verify, 2 workers', two, plans.verify(plans.tokensOf(hot)), { connections: 2 * CONNECTIONS }),
  ]
}

async function onEmbedded(assay: Assay): Promise<Contender[]> {
  const customer = await plans.signUp(assay.port)
  return [
    verifyIssued('verify, embedded', assay, customer.apiKey),
    byHttp('issue, embedded', assay, plans.issue([customer])),
  ]
}

/** With tokens that the server has issued, as nobody else has its customer's secret. */
const verifyIssued = (name: string, assay: Assay, apiKey: string): Contender => ({
  name,
  counts: 'answers',
  round: async seconds =>
    byHttp(name, assay, plans.verify(await plans.issued(assay.port, apiKey))).round(seconds),
})
