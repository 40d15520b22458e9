import { afterEach, expect, onTestFinished, test } from 'vitest'
import { startCollector } from '../support/collector.ts'
import { startAssay, stopAll } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'
import { connectTo, pidOf } from '../support/workers.ts'
import { ADMIN_TOKEN } from '../support/world.ts'

afterEach(stopAll)

test('each worker exports the spans of its own requests', async () => {
  const { url, drop } = await copyDatabase()
  onTestFinished(drop)
  const collector = await startCollector()
  const assay = await startAssay({
    DATABASE_URL: url,
    MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
    ADMIN_TOKEN,
    WORKERS: '2',
    ...collector.settings,
  })
  const workers = [1, 2]
  for (const worker of workers) {
    const connection = await connectTo(assay, worker)
    const listed = await connection.ask('/admin/customers', { token: ADMIN_TOKEN })
    expect(listed.status).toBe(200)
  }
  const pids = workers.map(worker => pidOf(assay, worker))
  expect(await assay.stop('SIGTERM')).toBe(0)
  const told = collector.spans.map(({ name }) => name)
  expect(told.filter(name => name === 'GET /admin/customers')).toHaveLength(2)
  expect(told.filter(name => name === 'listCustomers')).toHaveLength(2)
  expect(collector.pids().toSorted()).toEqual(pids.toSorted())
})
