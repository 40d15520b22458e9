import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findBinaries, type OwnPostgres, startPostgres, startStandby } from '../../faults/postgres.ts'
import { runAssay, stopAll } from '../support/process.ts'

/**
 * URLs that lead to a real standby are detected at start, and the exit code says whether the setting or the database is
 * at fault.
 */

const secrets = {
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
}

describe.skipIf(!findBinaries())('a standby', () => {
  let primary: OwnPostgres
  let standby: OwnPostgres

  beforeAll(async () => {
    primary = await startPostgres()
    standby = await startStandby(primary)
  })
  afterAll(async () => {
    await stopAll()
    await primary?.stop()
    await standby?.stop()
  })

  test('at DIRECT_DATABASE_URL is a wrong setting', async () => {
    const urls = { DATABASE_URL: primary.url, DIRECT_DATABASE_URL: standby.url }
    const { code, stderr } = await runAssay({ ...secrets, ...urls })
    expect(code).toBe(78)
    expect(stderr).toContain('DIRECT_DATABASE_URL: points to a standby, which is read-only; use the primary')
  })

  test('at DATABASE_URL may be promoted at any moment: the database cannot be used now', async () => {
    const { code, stderr } = await runAssay({ ...secrets, DATABASE_URL: standby.url })
    expect(code).toBe(69)
    expect(stderr).toContain('it is a standby, which is read-only; use the primary, or promote the standby')
  })
})
