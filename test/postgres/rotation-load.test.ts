import { expect, inject, test } from 'vitest'
import { drillRotations } from '../../faults/rotations/drill.ts'
import { problemsOf } from '../../faults/rotations/report.ts'

const ROTATIONS = 3
const REQUESTS = 3_000
/** Long only where the machine has other things to do (ms). */
const DEADLINE = 180_000

// The long form: npm run faults -- --rotations 20
test(
  'both secrets are rotated under load at three replicas: no verification fails and no refresh is refused',
  async () => {
    const outcome = await drillRotations(inject('databaseUrl'), ROTATIONS, REQUESTS)
    expect(problemsOf(outcome, ROTATIONS)).toEqual([])
    const { verify, refresh, issue } = outcome.findings.requests
    expect(verify + refresh + issue).toBeGreaterThanOrEqual(REQUESTS)
    expect(Math.min(verify, refresh, issue)).toBeGreaterThan(REQUESTS / 100)
  },
  DEADLINE,
)
