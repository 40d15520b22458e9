import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { startPgbouncer } from './pgbouncer.ts'

/** `npm run test:pooler`: everything that speaks to Postgres, through a real pgbouncer in transaction mode (H27). */

const direct = process.env.TEST_DATABASE_URL
if (!direct) throw new Error('set TEST_DATABASE_URL to a Postgres on which databases may be made')
// What it started ends with it, by its exit handlers.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))
const pgbouncer = await startPgbouncer(direct)
const env = { ...process.env, TEST_POOLER: new URL(pgbouncer.through(direct)).host }
const suite = ['run', '--project', 'postgres', ...process.argv.slice(2)]
const [code] = await once(spawn('vitest', suite, { env, stdio: 'inherit' }), 'exit')
await pgbouncer.stop()
process.exit(code ?? 1)
