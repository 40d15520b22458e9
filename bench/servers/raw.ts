import postgres from 'postgres'
import type { Line } from '../../db/client.ts'
import { findRecords } from '../../db/queries/customer-keys.ts'
import { actsOf, insertSessions, insertTokens } from '../../db/queries/issue.ts'
import { refreshesOf, refreshSession } from '../../db/queries/refresh.ts'
import { randomId } from '../../server/crypto/credentials.ts'
import { measure, obey } from './measure.ts'

/**
 * The limit of what asks the database: postgres.js, as many connections as Assay has, Assay's own statements one by one, and
 * nothing else. Told by its parent what to do and for how long, answers how often it was done.
 */

const CONNECTIONS = 10
/** Done before it is measured: statements are prepared, plans made. */
const WARM_UP = 200

const sql = postgres(process.env.DATABASE_URL!, { max: CONNECTIONS, onnotice: () => {} })

const db: Pick<Line, 'query'> = {
  query: async <Row>(text: string, params: readonly unknown[] = []) =>
    (await sql.unsafe(text, params as never[], { prepare: true })) as unknown as Row[],
}

const customers: string[] = JSON.parse(process.env.CUSTOMERS!)
const customerOf = (i: number) => customers[i % customers.length]!

const origin = { actor: 'api_key:bench', ip: '127.0.0.1', userAgent: undefined }
const defaults = {
  accessTokenTtl: 300,
  maxAccessTokenTtl: 900,
  refreshTokenTtl: 2_592_000,
  sessionMaxTtl: 7_776_000,
  refreshPolicy: 'until_confirmed' as const,
}
const tokenFor = (i: number) => ({
  ...origin,
  expiresIn: undefined,
  customerId: customerOf(i),
  subject: `user-${i % 1_000}`,
  scope: 'read write',
  exact: true,
  type: 'token.issued' as const,
  tokenId: randomId(15),
  apiKeyId: undefined,
})

/** The generation of each session's refresh token. */
const sessions: { customerId: string; sessionId: string; gen: number }[] = []

async function startSessions(many: number) {
  for (let i = 0; i < many; i++) {
    const session = { ...tokenFor(i), sessionId: randomId(15), audience: '"bench"', ext: undefined }
    await insertSessions(db, { acts: actsOf([session]), ...defaults })
    sessions.push({ customerId: session.customerId, sessionId: session.sessionId, gen: 1 })
  }
}

const acts: Record<string, (i: number) => Promise<unknown[]>> = {
  issue: i => insertTokens(db, { acts: actsOf([tokenFor(i)]), ...defaults }),
  select: i => findRecords(db, { ids: JSON.stringify([customerOf(i)]) }),
  refresh: i => {
    const session = sessions[i % sessions.length]!
    const refresh = { ...session, gen: session.gen++, scope: undefined, tokenId: randomId(15), origin }
    const acts = refreshesOf([refresh])
    return refreshSession(db, { acts, ...defaults, grace: 10 })
  },
}

await startSessions(WARM_UP)
for (const act of Object.values(acts)) for (let i = 0; i < WARM_UP; i++) await act(i)
await obey(async asked => {
  const run = acts[asked.act]!
  let next = 0
  return measure(asked, async () => {
    if ((await run(next++)).length !== 1) throw new Error(`${asked.act}: not one row`)
  })
})
