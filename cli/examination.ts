import type { Api } from './api.ts'
import { CommandError } from './command.ts'
import { database } from './database_findings.ts'
import { type Add, type Finding, type Found, ok, warning, wrong } from './finding.ts'
import { roundTrip } from './round_trip.ts'
import { fileModes, issuer, settings } from './settings_findings.ts'

/** Looks at everything, one check after the other. What a check rests on and isn't there leaves it out. */
export async function examine(env: NodeJS.ProcessEnv, api: Api | undefined): Promise<Finding[]> {
  const findings: Finding[] = []
  const add: Add = (check, found) => void findings.push({ check, ...found })
  const config = settings(env, add)
  for (const found of fileModes(env, config)) add('file modes', found)
  if (config) {
    add('issuer', issuer(config))
    if (config.databaseUrl === undefined) add('database', ok(`embedded in ${config.dataDir}`))
    else await database(config, config.databaseUrl, add)
    if (config.redisUrl !== undefined) add('redis', await redis(config.redisUrl))
  }
  if (api) add('round trip', await server(api, config?.issuer))
  return findings
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
