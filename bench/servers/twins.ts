import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import type { Answer } from '../api.ts'

/**
 * The upper limits: a Hono app that sends the same answers as Assay, with no logic behind them. Its parent has asked Assay once
 * and passes the headers and the body. /verify returns those headers. /introspect parses the same form and returns that JSON.
 * Neither checks the token.
 */

const answers: { verify: Answer; introspect: Answer } = JSON.parse(process.env.ANSWERS!)
const headers = {
  verify: Object.fromEntries(answers.verify.headers),
  introspect: Object.fromEntries(answers.introspect.headers),
}
const active = JSON.parse(answers.introspect.body)

const app = new Hono()
  .all('/verify', c =>
    c.req.header('authorization') === undefined
      ? new Response(null, { status: 401 })
      : new Response(null, { status: 200, headers: headers.verify }),
  )
  .post('/introspect', async c => {
    const form = new URLSearchParams(await c.req.text())
    if (form.get('token') === null || c.req.header('authorization') === undefined) return c.json({}, 400)
    return c.json(active, 200, headers.introspect)
  })

const server = createServer(getRequestListener(app.fetch, { hostname: '127.0.0.1' })).listen(
  0,
  '127.0.0.1',
  () => {
    process.stdout.write(`${JSON.stringify({ port: (server.address() as AddressInfo).port })}\n`)
  },
)
