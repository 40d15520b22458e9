import type { Api } from '../client.ts'
import { CommandError } from '../errors.ts'
import { database } from './checks/database.ts'
import { fileModes, issuer, settings } from './checks/settings.ts'
import { type Add, type Finding, type Found, failedCheck, ok, warning, wrong } from './result.ts'
import { roundTrip } from './smoke-test.ts'

type Config = NonNullable<ReturnType<typeof settings>>

/**
 * Runs all checks in order, and skips those whose prerequisites failed. Never throws: a check that fails itself is a
 * finding too.
 */
export async function runChecks(env: NodeJS.ProcessEnv, api: Api | undefined): Promise<Finding[]> {
  const findings: Finding[] = []
  const add: Add = (check, found) => void findings.push({ check, ...found })
  const guard = async (check: string, run: () => Promise<void>) => {
    await run().catch(error => add(check, failedCheck(error)))
  }
  let config: Config | undefined
  await guard('settings', async () => {
    config = settings(env, add)
  })
  await guard('file modes', async () => {
    for (const found of fileModes(env, config)) add('file modes', found)
  })
  if (config) await examineParts(config, add, guard)
  if (api) await guard('round trip', async () => add('round trip', await server(api, config?.issuer)))
  return findings
}

type Guard = (check: string, run: () => Promise<void>) => Promise<void>

async function examineParts(config: Config, add: Add, guard: Guard) {
  const { databaseUrl, redisUrl, dataDir } = config
  await guard('issuer', async () => add('issuer', issuer(config)))
  if (databaseUrl === undefined) add('database', ok(`embedded in ${dataDir}`))
  else await guard('database', () => database(config, databaseUrl, add))
  if (redisUrl !== undefined) await guard('redis', async () => add('redis', await redis(redisUrl)))
}

async function redis(url: string): Promise<Found> {
  const { createClient } = await import('redis')
  const client = createClient({ url, socket: { connectTimeout: 2_000, reconnectStrategy: false } })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.ping()
    return ok('answers')
  } catch (error) {
    const { code } = error as { code?: string }
    return wrong(
      `does not answer (${code ?? 'refused'})`,
      'mend REDIS_URL, or start it; without it nothing is lost but speed',
    )
  } finally {
    client.destroy()
  }
}

/** A token's whole life, through a server that runs. */
async function server(api: Api, issuer: string | undefined): Promise<Found> {
  try {
    return ok(await roundTrip(api, issuer))
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    return warning(error.message, 'start the server, or look at its log; --offline leaves this out')
  }
}
