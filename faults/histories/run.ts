import { startPostgres } from '../postgres.ts'
import { makeStage } from '../stage.ts'
import { play } from './play.ts'
import { report } from './report.ts'

const CLIENTS = 50

export interface HistoryOptions {
  seconds: number
  seed: number
  replicas: number
}

const say = (line: string) => process.stdout.write(`${line}\n`)

/** Runs a random history on servers of its own and prints the result. Returns the number of violations. */
export async function runHistory({ seconds, seed, replicas }: HistoryOptions): Promise<number> {
  say(`seed ${seed}`)
  const server = await startPostgres()
  const stage = await makeStage({ serverUrl: server.url, server, replicas })
  try {
    const played = await play(stage, { clients: CLIENTS, seconds, seed })
    say(report(played))
    return played.violations.length
  } finally {
    await stage.stop()
    await stage.server!.stop()
  }
}
