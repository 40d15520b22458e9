import { afterAll, beforeAll, expect, test } from 'vitest'
import { drill } from './drill.ts'
import type { Fault } from './fault.ts'
import type { Stage } from './stage.ts'

/** Processes start slowly on a busy machine, and a drill waits for slow recovery (ms). */
const PATIENCE = 90_000

/** Runs each fault once, all on one stage. */
export function drillOnce(rows: Fault[], make: () => Promise<Stage>) {
  let stage: Stage | undefined
  beforeAll(async () => {
    stage = await make()
  }, PATIENCE)
  afterAll(async () => {
    await stage?.stop()
    await stage?.server?.stop()
    await stage?.redis?.stop()
  }, PATIENCE)

  test.each(rows)(
    'H26 no late yes, no false logout, and all comes back: $name',
    async fault => {
      const { problems } = await drill(stage!, fault)
      expect(problems.slice(0, 5)).toEqual([])
    },
    PATIENCE,
  )
}
