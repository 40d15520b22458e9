import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { OUTCOMES } from '../server/keys/redis-cache.ts'
import { UNAVAILABLE } from '../server/lib/errors.ts'
import { Metrics } from '../server/lib/metrics.ts'
import { RELOAD_REASONS } from '../server/revocation/reload.ts'
import { MetricsAggregator } from '../server/workers/metrics.ts'

const DEPLOY = join(import.meta.dirname, '../deploy')
const text = (file: string) => readFileSync(join(DEPLOY, file), 'utf8')
const runbook = text('../docs/operating.md')

interface Rule {
  alert: string
  expr: string
  for?: string
  labels: { severity: string }
  annotations: { summary: string; runbook: string }
}

const rules: Rule[] = parse(text('prometheus/alerts.yaml')).groups.flatMap(
  ({ rules }: { rules: Rule[] }) => rules,
)

interface Panel {
  id: number
  title: string
  type: string
  gridPos: { x: number; y: number; w: number; h: number }
  description?: string
  fieldConfig?: { defaults: { unit?: string } }
  targets?: { expr: string; legendFormat?: string }[]
}

const dashboard: { panels: Panel[]; templating: { list: { definition?: string }[] } } = JSON.parse(
  text('grafana/assay.json'),
)
const expressions = {
  'prometheus/alerts.yaml': rules.map(({ expr }) => expr),
  'grafana/assay.json': [
    ...dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
    ...dashboard.templating.list.flatMap(({ definition = [] }) => definition),
  ],
}

const namesIn = (expr: string) => expr.match(/\b(assay|nodejs|process)_\w+/g) ?? []

/** The metrics of an idle replica, and those of its primary process. */
async function atStart(): Promise<string> {
  const zero = () => 0
  const metrics = new Metrics(
    {
      busAge: zero,
      maxAnswerAge: zero,
      changeFeed: () => ({ polls: 0, failures: 0, rows: 0 }),
      reloads: () => new Map(RELOAD_REASONS.map(reason => [reason, 0])),
      revocations: zero,
      customers: zero,
      database: () => ({ calls: 0, connections: 0 }),
      auditLag: zero,
      bodyBytes: zero,
      clockHeld: () => false,
      tokenCache: () => ({ outcomes: new Map(), tokens: 0, bytes: 0 }),
      redisKeyCache: () => new Map(OUTCOMES.map(outcome => [outcome, 0])),
      redisFailures: zero,
      droppedLogLines: zero,
    },
    { process: true },
  )
  return (await metrics.text()) + (await new MetricsAggregator([]).text())
}

/** The metric names, including the series of histograms. */
async function printed(): Promise<Set<string>> {
  const types = [...(await atStart()).matchAll(/^# TYPE (\S+) (\S+)$/gm)]
  return new Set(
    types.flatMap(([, name, type]) =>
      type === 'histogram' ? ['_bucket', '_sum', '_count'].map(end => name + end) : [name!],
    ),
  )
}

describe.each(Object.entries(expressions))('deploy/%s', (_, used) => {
  let known: Set<string>
  beforeAll(async () => {
    known = await printed()
  })

  test('uses only metrics that GET /metrics prints', () => {
    const names = used.flatMap(namesIn)
    expect(names.length).toBeGreaterThan(15)
    expect([...new Set(names)].filter(name => !known.has(name))).toEqual([])
  })

  test('uses only existing reasons and outcomes', () => {
    const source = [
      'routes/verify.ts',
      'keys/redis-cache.ts',
      'tokens/verifier.ts',
      'jobs.ts',
      'lib/metrics.ts',
      '../db/queries/refresh.ts',
    ].map(file => readFileSync(join(import.meta.dirname, '../server', file), 'utf8'))
    const outcomes = (value: string) => value === 'ok' || source.some(file => file.includes(`'${value}'`))
    const reasons = new Set<string>([...Object.keys(UNAVAILABLE), ...RELOAD_REASONS])
    for (const [, label, values] of used.join('\n').matchAll(/\b(reason|outcome)!?=~?"([^"]+)"/g))
      for (const value of values!.split('|'))
        expect({ value, known: label === 'reason' ? reasons.has(value) : outcomes(value) }).toEqual({
          value,
          known: true,
        })
  })
})

describe('deploy/prometheus/alerts.yaml', () => {
  test('each alert has its meaning, its urgency, and a link to read on', () => {
    expect(rules.length).toBeGreaterThan(10)
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
    for (const { alert, labels, annotations } of rules) {
      expect(annotations.runbook).toBe(`docs/operating.md#${alert.toLowerCase()}`)
      expect(runbook).toContain(`\n### ${alert}\n`)
      expect(annotations.summary.length).toBeGreaterThan(10)
      expect(['page', 'ticket']).toContain(labels.severity)
    }
  })
})

test('an alert that fires on the first occurrence uses a series that exists before', async () => {
  const once = rules.filter(({ for: lasts }) => lasts === undefined).map(({ expr }) => expr)
  const waitedFor = [...once.join('\n').matchAll(/increase\((\w+)\{(\w+="\w+")\}/g)]
  expect(waitedFor.length).toBeGreaterThan(4)
  const text = await atStart()
  for (const [, name, label] of waitedFor)
    if (label !== 'status="500"') expect(text).toContain(`\n${name}{${label}} 0\n`)
})

describe('deploy/grafana/assay.json', () => {
  test('every panel has an id, its own place, and something to show', () => {
    const { panels } = dashboard
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, index) => `${x + (index % w)} ${y + Math.floor(index / w)}`),
    )
    expect(new Set(cells).size).toBe(cells.length)
  })

  test('every panel has a title, a unit and legends', () => {
    for (const { title, type, description, fieldConfig, targets = [] } of dashboard.panels) {
      if (type === 'row') continue
      expect(targets, title).not.toHaveLength(0)
      expect(description, title).toMatch(/.{10,}/)
      expect(fieldConfig?.defaults.unit, title).toBeTypeOf('string')
      for (const { legendFormat } of targets) expect(legendFormat, title).toMatch(/./)
    }
  })
})
