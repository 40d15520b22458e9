import { expect, test } from 'vitest'
import type { Poll, RevocationRow } from '../db/queries/change-feed.ts'
import { createLog } from '../server/lib/logger.ts'
import { findReloadReason, LastChange, type ReloadReason } from '../server/revocation/reload.ts'

const HOUR = 3_600_000
const NOW = 1_800_000_000_000
/** System, database, table of the counter, timeline, and start time of the server. */
const timelineOf = (system: number, timeline: number, start = 1) =>
  `${system}/16384/16448/0000000${timeline}/180000000${start}.5`
const known = { timeline: timelineOf(71, 3), committed: 40, readAt: NOW, sweptAt: NOW - 50_000 }
const same = { seq: 40, timeline: timelineOf(71, 3), now: NOW + 500 }

test.each([
  ['nothing', {}, undefined],
  ['new changes', { seq: 41 }, undefined],
  ['a promoted server that has every change', { timeline: timelineOf(71, 4, 2) }, 'timeline'],
  ['a promoted server with new changes', { timeline: timelineOf(71, 4, 2), seq: 50 }, 'timeline'],
  ['a promoted server that lacks a change', { timeline: timelineOf(71, 4, 2), seq: 39 }, 'commits_lost'],
  ['a server that was set back', { seq: 39 }, 'commits_lost'],
  ['a restarted server', { timeline: timelineOf(71, 3, 2) }, 'restart'],
  ['a restarted server that lacks changes', { timeline: timelineOf(71, 3, 2), seq: 39 }, 'commits_lost'],
  ['another database', { timeline: timelineOf(72, 3) }, 'database'],
  ['another database that lacks changes', { timeline: timelineOf(72, 1), seq: 0 }, 'commits_lost'],
  ['a clock that was set back by less than 30 s', { now: NOW - 70_000 }, undefined],
  ['a clock that was set back further', { now: NOW - 90_000 }, 'clock'],
  ['an hour without a poll', { now: NOW + HOUR }, undefined],
  ['more than an hour without a poll', { now: NOW + HOUR + 1 }, 'gap'],
])('the reload reason for %s', (_, change, reason) => {
  expect(findReloadReason(known, { ...same, ...change } as Poll)).toBe(reason)
})

const row = (seq: number, key: string, deadAfter = 1): RevocationRow => [seq, 'token', 'c', key, 0, deadAfter]

test.each<[string, ReloadReason, RevocationRow[], boolean]>([
  ['the same change', 'timeline', [row(39, 'x'), row(40, 'lost', 2)], false],
  ['another change', 'timeline', [row(39, 'x'), row(40, 'new')], true],
  ['another change and later ones', 'timeline', [row(40, 'new'), row(41, 'y')], true],
  ['another change after a restart', 'restart', [row(40, 'new')], true],
  ['no change, because maintenance deleted it,', 'timeline', [row(39, 'x'), row(41, 'y')], false],
  ['a change of another database', 'database', [row(40, 'new')], false],
  ['a change after a loss that was already logged', 'commits_lost', [row(40, 'new')], false],
])('the reload reason if %s has the last number that the replica knew', (_, reason, rows, isLoss) => {
  const lines: string[] = []
  const last = new LastChange(createLog('warn', { write: line => void lines.push(line) }))
  expect(last.isReplaced([row(38, 'w'), row(40, 'lost')])).toBe(false)
  last.reset(reason)
  // The first page of the reload does not reach that number.
  expect(last.isReplaced([row(37, 'v')])).toBe(false)
  expect(last.isReplaced(rows)).toBe(isLoss)
  expect(lines.map(line => JSON.parse(line).number)).toEqual(isLoss ? [40] : [])
  expect(last.isReplaced([row(42, 'z')])).toBe(false)
})
