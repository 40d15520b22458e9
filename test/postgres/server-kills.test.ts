import { expect, test } from 'vitest'
import { drillKills } from '../../faults/kills/drill.ts'
import { problemsOf } from '../../faults/kills/report.ts'
import { findBinaries } from '../../faults/postgres.ts'

/** Long only if the machine is busy (ms). */
const DEADLINE = 600_000

// The long form: npm run faults -- --kills 100 --postgres-kills 20
test.skipIf(!findBinaries())(
  'H36 killing servers and their Postgres during acts loses nothing acknowledged, forks no session and logs nobody out',
  async () => {
    const toll = await drillKills(4, 1)
    expect(problemsOf(toll)).toEqual([])
    // The other outcomes are too rare to be certain in such a short drill.
    for (const kind of ['issue', 'refresh', 'revoke session', 'revoke subject', 'revoke token'])
      expect([...toll.ledger.acknowledged.keys()]).toContain(kind)
  },
  DEADLINE,
)
