import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { PGlite } from '@electric-sql/pglite'
import type { Database } from './client.ts'
import { PGLITE_PARSERS, PGLITE_SERIALIZERS } from './codecs.ts'
import { within } from './deadline.ts'
import { CorruptDatabaseError, translate } from './errors.ts'
import { migrate } from './migrate.ts'
import { PgliteStatements } from './pglite-statements.ts'

/**
 * PGlite fills the whole of `shared_buffers` with zeros at each start. Postgres's default of 128 MB costs a start about 0.3 s
 * and the process 120 MB.
 */
const BUFFERS = ['-c', 'shared_buffers=16MB']

/**
 * Postgres inside this process, migrated. It has one connection and no directory lock of its own
 * (server/embedded/pid-lock.ts has), and it runs with fsync off: it survives the process's death, not the machine's.
 */
export async function openEmbedded(folder: string, deadline: number): Promise<Database> {
  // PGlite treats a folder without this file as empty, and would overwrite its content with a new database.
  if (existsSync(folder) && readdirSync(folder).length > 0 && !existsSync(join(folder, 'PG_VERSION')))
    throw new CorruptDatabaseError(folder)
  const pglite = await create(folder)
  // Only the transaction's handle may be used here: a call on the one connection would wait for itself forever.
  await pglite.transaction(transaction =>
    migrate({
      query: async <Row>(statement: string) =>
        ((await transaction.exec(statement)).at(-1)?.rows ?? []) as Row[],
    }),
  )
  const statements = new PgliteStatements(pglite)
  const connection = (limit: number) => ({
    ...calls(pglite, statements, limit, atOnce),
    close: async () => {},
  })
  return {
    ...calls(pglite, statements, deadline, inTurns()),
    kind: 'embedded',
    connection,
    reconnect: () => {},
  }
}

/** PGlite reports a damaged database as an abort or a failed initialisation, without a code. */
async function create(folder: string): Promise<PGlite> {
  try {
    const pglite = await PGlite.create(folder, {
      startParams: [...PGlite.defaultStartParams, ...BUFFERS],
      initDbStartParams: BUFFERS,
    })
    // Set after opening, because PGlite replaces the codecs for arrays while it opens.
    Object.assign(pglite.parsers, PGLITE_PARSERS)
    Object.assign(pglite.serializers, PGLITE_SERIALIZERS)
    return pglite
  } catch (error) {
    throw isOfSystem(error) ? error : new CorruptDatabaseError(folder, error)
  }
}

/** The folder can't be read or written, which says nothing about its content. */
const isOfSystem = (error: unknown) => (error as NodeJS.ErrnoException | null)?.syscall !== undefined

/** A statement whose deadline passed while it waited is not run: its caller has been answered. */
const LATE = new Error('the statement did not end before its deadline')

type Schedule = <Result>(run: () => Promise<Result>) => Promise<Result>

/** For the change feed, whose polls must not wait behind thousands of statements. */
const atOnce: Schedule = run => run()

/**
 * Runs one statement after another, with a turn of the event loop after each. PGlite runs on this thread and starts
 * the next queued statement without a turn, so thousands of them would keep the process from reading sockets and
 * running timers.
 */
function inTurns(): Schedule {
  let last: Promise<unknown> = Promise.resolve()
  return run => {
    const result = last.then(run)
    last = result.then(turn, turn)
    return result
  }
}

function calls(pglite: PGlite, statements: PgliteStatements, deadline: number, schedule: Schedule) {
  let calls = 0

  async function call<Row>(text: string, params: readonly unknown[], rowMode: 'array' | 'object') {
    calls++
    let late = false
    const run = () => (late ? Promise.reject(LATE) : statements.run<Row>(text, params, rowMode))
    try {
      return await within(deadline, schedule(run), () => {
        late = true
      })
    } catch (error) {
      throw pglite.closed ? translate({ code: 'CONNECTION_CLOSED' }) : translate(error)
    } finally {
      calls--
    }
  }

  return {
    query: <Row>(text: string, params: readonly unknown[] = []) => call<Row>(text, params, 'object'),
    values: (text: string, params: readonly unknown[] = []) => call<unknown[]>(text, params, 'array'),
    usage: () => ({ calls, connections: 1 }),
    close: () => pglite.close(),
  }
}
