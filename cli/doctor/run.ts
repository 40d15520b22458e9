import type { Api } from '../client.ts'
import { CommandError } from '../errors.ts'
import { database } from './checks/database.ts'
import { redis } from './checks/redis.ts'
import { fileModes, issuer, settings } from './checks/settings.ts'
import { type CheckResult, type Finding, failedCheck, ok, type Report, warning } from './result.ts'
import { roundTrip } from './smoke-test.ts'

type Config = NonNullable<ReturnType<typeof settings>>

/**
 * Runs all checks in order, and skips those whose prerequisites failed. Never throws: a check that fails itself is a
 * finding too.
 */
export async function runChecks(env: NodeJS.ProcessEnv, api: Api | undefined): Promise<Finding[]> {
  const findings: Finding[] = []
  const report: Report = (check, result) => void findings.push({ check, ...result })
  const guard = async (check: string, run: () => Promise<void>) => {
    await run().catch(error => report(check, failedCheck(error)))
  }
  let config: Config | undefined
  await guard('settings', async () => {
    config = settings(env, report)
  })
  await guard('file modes', async () => {
    for (const result of fileModes(env, config)) report('file modes', result)
  })
  if (config) await checkParts(config, report, guard)
  if (api) await guard('round trip', async () => report('round trip', await checkServer(api, config?.issuer)))
  return findings
}

type Guard = (check: string, run: () => Promise<void>) => Promise<void>

async function checkParts(config: Config, report: Report, guard: Guard) {
  const { databaseUrl, redisUrl, dataDir } = config
  await guard('issuer', async () => report('issuer', issuer(config)))
  if (databaseUrl === undefined) report('database', ok(`embedded in ${dataDir}`))
  else await guard('database', () => database(config, databaseUrl, report))
  if (redisUrl !== undefined) await guard('redis', async () => report('redis', await redis(redisUrl)))
}

/** Issues, verifies and revokes a token at a running server. */
async function checkServer(api: Api, issuer: string | undefined): Promise<CheckResult> {
  try {
    return ok(await roundTrip(api, issuer))
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    const [found, remedy = 'check the log of the server'] = error.message.split(/; (.*)/s)
    return warning(found!, `${remedy}; --offline skips this check`)
  }
}
