import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { startPgbouncer } from './pgbouncer.ts'

/** `npm run test:pooler`: runs all tests that use Postgres through a real pgbouncer in transaction mode (H27). */

const direct = process.env.TEST_DATABASE_URL
if (!direct) throw new Error('set TEST_DATABASE_URL to a Postgres on which databases may be made')
let vitest: ChildProcess | undefined
// Until vitest runs, exit handlers end the processes that this one started.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => (vitest === undefined ? process.exit(1) : vitest.kill(signal)))
const pgbouncer = await startPgbouncer(direct)
const env = { ...process.env, TEST_POOLER: new URL(pgbouncer.through(direct)).host }
const suite = ['run', '--project', 'postgres*', ...process.argv.slice(2)]
vitest = spawn('vitest', suite, { env, stdio: 'inherit' })
const [code] = await once(vitest, 'exit')
await pgbouncer.stop()
process.exit(code ?? 1)
