import { afterEach, expect, inject, test } from 'vitest'
import { play } from '../../faults/histories/play.ts'
import { report } from '../../faults/histories/report.ts'
import { makeStage } from '../../faults/stage.ts'
import { stopAll } from '../support/process.ts'

/** A short form of `npm run faults -- --history 600`: fewer clients, and no fault of the whole server, which others use. */

const SEED = 20_261_122

afterEach(() => stopAll())

test('random clients and faults on three replicas break no guarantee', async () => {
  const stage = await makeStage({ serverUrl: inject('databaseUrl'), replicas: 3 })
  try {
    const played = await play(stage, { clients: 20, seconds: 12, seed: SEED })
    process.stdout.write(`${report(played)}\n`)
    expect(played.violations).toEqual([])
    expect(played.tried).toBeGreaterThan(0)
    expect(played.faults.size).toBeGreaterThan(0)
  } finally {
    await stage.stop()
  }
})
