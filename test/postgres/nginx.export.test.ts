import { describe, expect, onTestFinished, test } from 'vitest'
import { orderAll } from '../support/audit-order.ts'
import { startListener } from '../support/backends.ts'
import { holding, named } from '../support/holding.ts'
import { findNginx, startNginx } from '../support/nginx.ts'
import { bearer, makeWorld, READER } from '../support/world.ts'

/** The statement that reads a page of the audit. */
const PAGE = named('listOrderedEvents')

/** nginx uses HTTP/1.0 for its upstreams unless configured otherwise. There the end of the connection ends the body. */
const locationOf = (port: number) => `
  location /export {
    proxy_pass http://127.0.0.1:${port}/admin/audit/export;
    proxy_http_version 1.0;
    proxy_buffering off;
  }`

describe.skipIf(!findNginx())('nginx that uses HTTP/1.0 upstream (skipped if not installed)', () => {
  test('does not present an export that failed in the middle as complete', async () => {
    const world = await makeWorld()
    onTestFinished(() => world.stop())
    const database = holding(world.db)
    const assay = await world.replica({}, { link: database.db })
    const { port } = await assay.serve()
    const backend = await startListener()
    onTestFinished(backend.stop)
    const nginx = await startNginx({ assay: [port], backend: backend.port, locations: locationOf(port) })
    onTestFinished(nginx.stop)
    await world.admin.query(
      `insert into assay.audit_events (at, customer_id, type, actor)
      select assay.now() - n * interval '1 second', null, 'token.issued', 'api_key:x' from generate_series(1, 3000) as n`,
    )

    await orderAll(world)

    const whole = await (await fetch(`${nginx.url}/export`, { headers: bearer(READER) })).text()
    expect(whole.trimEnd().split('\n')).toHaveLength(3_000)

    const first = database.hold(PAGE)
    const asked = fetch(`${nginx.url}/export`, { headers: bearer(READER) })
    await first.has
    const second = database.hold(PAGE)
    first.release()
    const response = await asked
    await second.has
    await world.admin.query('alter table assay.audit_events rename to elsewhere')
    second.release()
    expect(response.status).toBe(200)
    await expect(response.text()).rejects.toThrow('terminated')
  })
})
