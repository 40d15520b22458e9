import { expect, inject, test } from 'vitest'
import { drillRotations } from '../../faults/rotations/drill.ts'
import { problemsOf } from '../../faults/rotations/report.ts'

const ROTATIONS = 3
const REQUESTS = 3_000
/** Long only if the machine is busy (ms). */
const DEADLINE = 180_000

// The long form: npm run faults -- --rotations 20
test(
  'rotating both secrets under load on three replicas fails no verification and refuses no refresh',
  async () => {
    const outcome = await drillRotations(inject('databaseUrl'), ROTATIONS, REQUESTS)
    expect(problemsOf(outcome, ROTATIONS)).toEqual([])
    const { verify, refresh, issue } = outcome.findings.requests
    expect(verify + refresh + issue).toBeGreaterThanOrEqual(REQUESTS)
    expect(Math.min(verify, refresh, issue)).toBeGreaterThan(REQUESTS / 100)
  },
  DEADLINE,
)
