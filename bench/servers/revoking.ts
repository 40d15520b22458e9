import { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { open } from '../../db/client.ts'
import { loadConfig } from '../../server/config/load.ts'
import { loadKeyRing } from '../../server/keys/master-keys.ts'
import { createLog } from '../../server/lib/logger.ts'
import { createServices } from '../../server/services.ts'
import { type Customer, tokenOf } from '../seed.ts'
import { measure, obey } from './measure.ts'

/**
 * Revocations without HTTP: callers in Assay's own process ask the whole app for them, past the sockets. Over sockets the load
 * and Postgres share what processors there are.
 */

const customers: Customer[] = JSON.parse(process.env.CUSTOMERS!, (name, value) =>
  name === 'secret' ? Buffer.from(value) : value,
)
const config = loadConfig(process.env, () => '')
const db = await open({ url: config.databaseUrl! })
const replica = createServices({
  config,
  db,
  redis: undefined,
  keyRing: await loadKeyRing(db, config.masterKeys as never),
  clock: { monotonic: () => performance.now(), wall: () => Date.now() },
  log: createLog('info', { write: () => {} }),
  process: { draining: () => false, migrated: async () => true },
  processMetrics: false,
})
await replica.changeFeed.start()

/** More than can be revoked in a second. */
const MOST = 40_000

interface Revocation {
  apiKey: string
  body: Buffer
}

const revocationOf = (i: number): Revocation => {
  const customer = customers[i % customers.length]!
  return { apiKey: customer.apiKey, body: Buffer.from(`token=${tokenOf(customer)}`) }
}

async function revoke({ apiKey, body }: Revocation) {
  const incoming = new IncomingMessage({ remoteAddress: '127.0.0.1' } as Socket)
  incoming.url = '/revoke'
  const headers = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/x-www-form-urlencoded' }
  incoming.push(body)
  incoming.push(null)
  const { status } = await replica.app.request('/revoke', { method: 'POST', headers }, { incoming })
  if (status !== 200) throw new Error(`/revoke answered ${status}`)
}

await obey(async asked => {
  const revocations = Array.from({ length: MOST * asked.seconds }, (_, i) => revocationOf(i))
  const before = replica.revocations.size
  const measured = await measure(asked, () => revoke(revocations.pop()!))
  // An answer is the same for a token that is none.
  if (replica.revocations.size - before < measured.requests)
    throw new Error(`of ${measured.requests} only ${replica.revocations.size - before} were revoked`)
  return measured
})
