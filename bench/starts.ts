import { type Assay, type Settings, startAssay } from './assay.ts'
import { createDatabase } from './database.ts'
import { memoryOf } from './processes.ts'
import { scratchFolder } from './scratch.ts'
import { median } from './table.ts'
import type { Tree } from './trees.ts'

/** Measures a start: the time from spawning the process to the first 200 of /readyz, and its memory soon after. */

export interface Started {
  /** In milliseconds. */
  readyAfter: number
  /** Memory SETTLE ms later (MB). */
  idle: number
}

const STARTS = 7
/** Delay before the memory of an idle server is measured (ms). */
const SETTLE = 1_000

export const startsOnPostgres = async (trees: Tree[], postgres: string) =>
  starts(trees, async () => ({ DATABASE_URL: await createDatabase(postgres) }))

export const startsEmbedded = (trees: Tree[]) =>
  starts(trees, async () => ({ DATA_DIR: await scratchFolder() }))

/** Starts the trees in turns. Like most starts in production, these find compiled code and an existing database. */
async function starts(trees: Tree[], settingsOf: () => Promise<Settings>): Promise<Started[]> {
  const settings = await Promise.all(trees.map(settingsOf))
  const start = (i: number) => startAssay(trees[i]!, settings[i]!)
  // The first fetch of this process loads its implementation, which must not count as the server's time.
  for (const i of trees.keys()) await (await start(i)).stop()
  const samples: Started[][] = trees.map(() => [])
  for (let n = 0; n < STARTS; n++)
    for (const i of trees.keys()) samples[i]!.push(await sample(await start(i)))
  return samples.map(each => ({
    readyAfter: median(each.map(({ readyAfter }) => readyAfter)),
    idle: median(each.map(({ idle }) => idle)),
  }))
}

async function sample(assay: Assay): Promise<Started> {
  await new Promise(resolve => setTimeout(resolve, SETTLE))
  const { readyAfter, pid } = assay
  const idle = memoryOf(pid)
  await assay.stop()
  return { readyAfter, idle }
}
