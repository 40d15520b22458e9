import { expect, test } from 'vitest'
import { drillKills } from '../../faults/kills/drill.ts'
import { problemsOf } from '../../faults/kills/report.ts'
import { findBinaries } from '../../faults/postgres.ts'

/** Long only where the machine has other things to do (ms). */
const DEADLINE = 600_000

// The long form: npm run faults -- --kills 100 --postgres-kills 20
test.skipIf(!findBinaries())(
  'H36 servers and their Postgres are killed in the midst of acts: nothing acknowledged is lost, no session forks, nobody is logged out',
  async () => {
    const toll = await drillKills(4, 1)
    expect(problemsOf(toll)).toEqual([])
    // The others are rarer than so short a drill can be sure of.
    for (const kind of ['issue', 'refresh', 'revoke session', 'revoke subject', 'revoke token'])
      expect([...toll.ledger.acknowledged.keys()]).toContain(kind)
  },
  DEADLINE,
)
