import { api, type Json } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { CommandError, EXIT } from '../errors.ts'
import { formatMilliseconds, table } from '../output.ts'

const TIMEOUT_MS = 10_000

export const status = new AssayCommand('status')
  .description('Show whether the server is ready, and its replicas. The exit code is 75 if it is not.')
  .example('status')
  .show(async () => {
    const answer = await api.fetch('/readyz', { signal: AbortSignal.timeout(TIMEOUT_MS) })
    const { status, checks } = (await answer.json().catch(() => ({}))) as Json
    if (checks === undefined) throw api.notAssay()
    if (status !== 'ok') process.exitCode = EXIT.tryAgain
    // Without the database that request would only wait for its deadline.
    const replicas = checks.database === 'ok' ? await readReplicas() : undefined
    const words = Object.entries(checks).map(([name, word]) => `${name} ${word}`)
    const lines = [`${api.url}: ${status} (${words.join(', ')})`, ...describeFailures(checks)]
    return {
      json: { status, checks, replicas },
      text: `${lines.join('\n')}\n\n${describeReplicas(replicas)}`,
    }
  })

/** Undefined while the database gives no answer. */
async function readReplicas(): Promise<Json[] | undefined> {
  try {
    return (await api.get('/admin/replicas')).replicas
  } catch (error) {
    if (error instanceof CommandError && error.code === EXIT.tryAgain) return undefined
    throw error
  }
}

/** By the name of a check in the answer of /readyz. */
const FAILURES: Record<string, string> = {
  accepting: 'the server is shutting down',
  state:
    'the last poll of the database is older than MAX_STALENESS, so requests fail with 503; check the log',
  database: "the database doesn't respond; start it, or run `assay doctor` with the server's settings",
  migrations: 'migrations are pending; run `assay migrate`',
}

const describeFailures = (checks: Record<string, string>) =>
  Object.entries(FAILURES)
    .filter(([name]) => checks[name] === 'failed')
    .map(([name, meaning]) => `${name}: ${meaning}`)

function describeReplicas(replicas: Json[] | undefined): string {
  if (replicas === undefined) return "the replicas are unknown, because the database doesn't respond"
  const row = (one: Json) => [one.id, one.version, one.applied, one.behind, formatMilliseconds(one.age_ms)]
  return table(['replica', 'version', 'applied', 'behind', 'last poll'], replicas.map(row))
}
