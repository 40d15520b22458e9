import { Hono } from 'hono'
import { z } from 'zod'
import { actorContext } from '../../http/act.ts'
import { readJson } from '../../http/body.ts'
import type { OperatorEnv } from '../../http/env.ts'
import { noQuery, present } from '../../http/params.ts'
import { json, noContent } from '../../http/respond.ts'
import type { ClockState } from '../../revocation/clock-watch.ts'

const INSTANT = 'must be held_until exactly as GET /admin/clock returned it'

/** The request names the hold that the operator has examined, so that a later jump needs another confirmation. */
const confirmRequest = z.strictObject({
  held_until: z.iso.datetime({ precision: 3, error: INSTANT }).transform(text => new Date(text)),
})

/** The database's clock, and whether a jump of it holds deletion. */
export const clock = new Hono<OperatorEnv>()
  .get('/', noQuery, async c => json(c, serializeClock(await c.get('services').clockWatch.find())))
  .post('/confirm', noQuery, async c => {
    const { held_until: heldUntil } = await readJson(c, confirmRequest)
    await c.get('services').clockWatch.confirm(heldUntil, actorContext(c))
    return noContent(c)
  })

const serializeClock = ({ now, heldUntil, jumpedAt, jump }: ClockState) =>
  present({
    database_time: now,
    held_until: heldUntil,
    jumped_at: jumpedAt,
    jump_seconds: jump === null ? undefined : Math.round(jump / 1000),
  })
