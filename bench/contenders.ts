import { ASYMMETRIC, ask, type Customer, createCustomers, issueTokens, metric } from './api.ts'
import type { Assay } from './assay.ts'
import { byHttp, byRaw, CONNECTIONS, type Contender, type Loaded } from './contender.ts'
import type { Target } from './load.ts'
import { gatewayTo, saysYes } from './nginx.ts'
import { once } from './once.ts'
import { peers } from './peers.ts'
import type { Plan } from './plan.ts'
import * as plans from './plans.ts'
import { type Customers, type Subject, startEmbedded, subjectOf } from './subject.ts'
import { AT_OLD, here, old, type Tree } from './trees.ts'
import { startTwins } from './twins.ts'

/** Everything that is measured, in the order of the turns. Contenders that are compared are next to each other. */
export function contendersOf(postgres: string): Contender[] {
  const now = subjectOf(here, postgres)
  const then = subjectOf(old, postgres)
  const twins = once(async () => startTwins(await now.server(), (await now.tokens())[0]!))
  return [
    ...verifying(now, then, twins),
    ...introspecting(now, then, twins),
    ...peers(postgres),
    ...throughNginx(now, then),
    issuing(now.eddsa, ', EdDSA'),
    ...both(now, then, writing),
    ...more(now),
    ...both(now, then, uncached),
    ...onEmbedded(),
    revoking(postgres),
  ]
}

/** The same contenders for both versions of the code, in pairs. */
function both(now: Subject, then: Subject, make: (subject: Subject, suffix: string) => Contender[]) {
  const olds = make(then, AT_OLD)
  return make(now, '').flatMap((each, i) => [each, olds[i]!])
}

type Server = () => Promise<Assay>

/** Loads `server` with a plan that is made when it is first needed. */
const loaded =
  (server: Server, plan: () => Promise<Plan> | Plan): (() => Promise<Loaded>) =>
  async () => ({ target: await server(), plan: await plan() })

type Twins = () => Promise<Target>

function verifying(now: Subject, then: Subject, twins: Twins): Contender[] {
  const plan = async () => plans.verify(await now.tokens())
  return [
    byHttp('bare Hono, /verify', async () => ({ target: await twins(), plan: await plan() })),
    everyTokenSeen(now.eddsa, ', EdDSA'),
    everyTokenSeen(now, ''),
    everyTokenSeen(then, AT_OLD),
    everyTokenNew(now, ''),
    ...ASYMMETRIC.map(alg => everyTokenNew(now.asymmetric(alg), `, ${alg}`)),
    byHttp('401, garbage', loaded(now.server, plans.verifyGarbage)),
    byHttp(
      '401, random kid',
      loaded(now.server, async () => plans.verifyRandomKid(await now.tokens())),
    ),
  ]
}

const everyTokenSeen = ({ server, tokens }: Customers, suffix: string): Contender =>
  byHttp(
    `verify, tokens seen before${suffix}`,
    loaded(server, async () => plans.verify(await tokens())),
  )

/** Cache hits for authenticated tokens, if the code has such a cache. */
const HITS = /^assay_token_cache_total\{.*"hit".*\}/
/** Maximum share of cache hits in a round. The last tokens of the previous round may still be cached. */
const MOST_HITS = 0.01

/** The set is larger than the cache, so a token is no longer cached when it comes again. The cache's hit count confirms that. */
function everyTokenNew({ server, newTokens }: Customers, suffix: string): Contender {
  const name = `verify, every token new${suffix}`
  const contender = byHttp(
    name,
    loaded(server, async () => ({ ...plans.verify(await newTokens()), goesOn: true })),
  )
  return {
    ...contender,
    async round(seconds) {
      const hits = async () => (await metric(await server(), HITS)) ?? 0
      const before = await hits()
      const sample = await contender.round(seconds)
      const part = ((await hits()) - before) / (sample.rate * seconds)
      if (part > MOST_HITS)
        throw new Error(`${name}: ${(part * 100).toFixed(1)} % of the tokens were in the cache`)
      return sample
    },
  }
}

function introspecting(now: Subject, then: Subject, twins: Twins): Contender[] {
  const inBatches = { worth: plans.BATCH, counts: 'tokens' }
  const plan = async () => plans.introspect(await now.tokens())
  return [
    byHttp('bare Hono, /introspect', async () => ({ target: await twins(), plan: await plan() })),
    ...both(now, then, ({ server, tokens }, suffix) => [
      byHttp(
        `introspect${suffix}`,
        loaded(server, async () => plans.introspect(await tokens())),
      ),
      byHttp(
        `introspect, batch of 100${suffix}`,
        loaded(server, async () => plans.introspectBatch((await tokens()).slice(0, 8 * plans.BATCH))),
        inBatches,
      ),
    ]),
  ]
}

function throughNginx(now: Subject, then: Subject): Contender[] {
  const by = async ({ tokens }: Subject, port: number) => ({
    target: await gatewayTo(port),
    plan: { ...plans.verify(await tokens()), header: 'X-Granted-To' },
  })
  return [
    byHttp('nginx and a static nginx', async () => by(now, (await saysYes()).port)),
    byHttp('verify, through nginx', async () => by(now, (await now.server()).port)),
    byHttp(`verify, through nginx${AT_OLD}`, async () => by(then, (await then.server()).port)),
  ]
}

const issuing = ({ server, hot }: Customers, suffix: string): Contender =>
  byHttp(
    `issue${suffix}`,
    loaded(server, async () => plans.issue(await hot())),
  )

const writing = (subject: Subject, suffix: string): Contender[] => [
  issuing(subject, suffix),
  byHttp(
    `refresh${suffix}`,
    loaded(subject.server, async () => plans.refresh(await subject.sessions())),
  ),
]

function more({ server, hot, tokens, another }: Subject): Contender[] {
  const workers = async () => ({
    target: await another({ WORKERS: '2' }),
    plan: plans.verify(await tokens()),
  })
  return [
    byHttp(
      'client_credentials',
      loaded(server, async () => plans.clientCredentials(await hot())),
    ),
    byHttp(
      'login',
      loaded(server, async () => plans.logIn(await hot())),
    ),
    byHttp('verify, 2 workers', workers, { connections: 2 * CONNECTIONS }),
  ]
}

/**
 * Starts a replica for the round, so that it must first read the customer of each token. Its code is warmed up, like that of
 * every contender, with tokens of a fifth of these customers, which are not used again.
 */
function uncached(subject: Subject, suffix: string): Contender[] {
  const name = `verify, key not cached${suffix}`
  const parts = once(async () => {
    const tokens = (await subject.cold()).map(({ token }) => token)
    const fifth = tokens.length / 5
    const measured: Plan = { ...plans.verify(tokens.slice(fifth)), once: true }
    return { warmUp: plans.verify(tokens.slice(0, fifth)), measured }
  })
  const planned = (target: Assay, plan: Plan) => byHttp(name, async () => ({ target, plan }))
  const onReplica = async <Made>(run: (measured: Contender) => Promise<Made>): Promise<Made> => {
    const { warmUp, measured } = await parts()
    const assay = await subject.another()
    try {
      await planned(assay, warmUp).round(1)
      return await run(planned(assay, measured))
    } finally {
      await assay.stop()
    }
  }
  return [
    byRaw(`its raw select${suffix}`, subject.rawSelect),
    {
      name,
      counts: 'answers',
      round: seconds => onReplica(measured => measured.round(seconds)),
      profile: seconds => onReplica(measured => measured.profile!(seconds)),
    },
  ]
}

interface Embedded {
  server: Server
  customers(): Promise<Customer[]>
}

function embedded(tree: () => Promise<Tree>): Embedded {
  const server = once(async () => startEmbedded(await tree()))
  return { server, customers: once(async () => createCustomers(await server(), 1)) }
}

function onEmbedded(): Contender[] {
  const [now, then] = [embedded(here), embedded(old)]
  const verify = async () => {
    const issued = await issueTokens(await now.server(), await now.customers(), plans.MIX)
    return plans.verify(issued.map(each => each.access_token))
  }
  const issue = ({ server, customers }: Embedded) =>
    loaded(server, async () => plans.issue(await customers()))
  return [
    byHttp('verify, embedded', loaded(now.server, verify)),
    byHttp('issue, embedded', issue(now)),
    byHttp(`issue, embedded${AT_OLD}`, issue(then)),
  ]
}

/** More than can be revoked in a second. */
const REVOCATIONS = 20_000
const CALLERS = 100

/**
 * Revokes new tokens in each round, on a separate database, so that no other contender has this many live revocations. An
 * invalid token gets the same answer, so introspection counts the tokens that were revoked.
 */
function revoking(postgres: string): Contender {
  const name = 'revoke, 100 callers'
  const { server, hot, manyTokens } = subjectOf(here, postgres)
  return {
    name,
    counts: 'answers',
    async round(seconds) {
      const tokens = await manyTokens(REVOCATIONS * seconds)
      const plan = async () => plans.revoke(await hot(), tokens)
      const sample = await byHttp(name, loaded(server, plan), { connections: CALLERS }).round(seconds)
      const revoked = await countInactive(await server(), tokens)
      // Requests in flight at the end have no answer, but their tokens may be revoked.
      if (revoked < Math.floor(sample.rate * seconds))
        throw new Error(`${name}: only ${revoked} tokens were revoked`)
      return sample
    },
  }
}

async function countInactive({ port }: Assay, tokens: string[]): Promise<number> {
  let inactive = 0
  for (const request of plans.introspectBatch(tokens).requests)
    inactive += (await ask(port, request)).body.split('"active":false').length - 1
  return inactive
}
