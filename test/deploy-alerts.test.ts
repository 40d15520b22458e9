import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type Series, TRIALS, WELL } from './support/alert-trials.ts'
import { findProgram } from './support/program.ts'

/** Checks with Prometheus itself that each alert fires for its cause at the first occurrence, and never otherwise. */

const run = promisify(execFile)
const ALERTS = join(import.meta.dirname, '../deploy/prometheus/alerts.yaml')
const DASHBOARD = join(import.meta.dirname, '../deploy/grafana/assay.json')
const promtool = findProgram('promtool')
const folder = mkdtempSync(join(tmpdir(), 'assay-alerts-'))
afterAll(() => rmSync(folder, { recursive: true }))

interface Rule {
  alert: string
  labels: Record<string, string>
  annotations: { runbook: string }
}
const rules: Rule[] = parse(readFileSync(ALERTS, 'utf8')).groups[0].rules

/** The series of one replica. */
const labelled = (series: Series, instance: string) =>
  Object.entries(series).map(([name, values]) => {
    const [metric, labels = '}'] = name.split('{')
    return { series: `${metric}{job="assay",instance="${instance}",${labels}`, values }
  })

/** Something happens on replica `a`; `b` is healthy unless stated. Throws the difference that promtool reports. */
async function expectAlerts(what: Series, tests: object[], atOther: Series = {}) {
  const file = join(folder, 'tests.yaml')
  const series = [...labelled({ ...WELL, ...what }, 'a'), ...labelled({ ...WELL, ...atOther }, 'b')]
  const trial = { interval: '15s', input_series: series, alert_rule_test: tests }
  // JSON is valid YAML.
  writeFileSync(file, JSON.stringify({ rule_files: [ALERTS], evaluation_interval: '15s', tests: [trial] }))
  const { stdout, stderr } = await run(promtool!, ['test', 'rules', file]).catch(error => error)
  expect(`${stdout}${stderr}`).toMatch(/SUCCESS\s*$/)
}

const none = (minutes: number) => rules.map(({ alert }) => ({ eval_time: `${minutes}m`, alertname: alert }))

interface Panel {
  id: number
  targets?: { expr: string }[]
}

describe.skipIf(!promtool)('the alerts, with promtool (skipped if not installed)', () => {
  test('are well-formed', async () => {
    await run(promtool!, ['check', 'rules', '--lint-fatal', ALERTS])
  })

  test('are silent while everything is healthy', async () => {
    await expectAlerts({}, [1, 12, 30, 70].flatMap(none))
  })

  test('are silent for an outage of the database of half a minute', async () => {
    const outage = {
      assay_change_feed_age_seconds: '0.3x40 12 0.3x259',
      assay_change_feed_polls_total: '0+30x40 1400+30x259',
      assay_change_feed_poll_failures_total: '0x40 150x259',
      'assay_unavailable_total{reason="change_feed"}': '0x40 2000 4000x258',
    }
    await expectAlerts(outage, [10, 11, 12, 13, 14, 15, 16, 20].flatMap(none))
  })

  test('page nobody for a planned switchover and back, seen by every replica', async () => {
    const switchover = { 'assay_change_feed_reloads_total{reason="timeline"}': '0x40 1x8 2x251' }
    const paging = rules.filter(({ labels }) => labels.severity === 'page').map(({ alert }) => alert)
    const silent = (minutes: number) => paging.map(alertname => ({ eval_time: `${minutes}m`, alertname }))
    await expectAlerts(switchover, [10, 11, 12, 13, 15, 20].flatMap(silent), switchover)
  })

  test('all have a trial', () => {
    expect(Object.keys(TRIALS)).toEqual(rules.map(({ alert }) => alert))
  })

  test.each(Object.entries(TRIALS))('%s fires', async (alertname, trial) => {
    const { what, everywhere, at, summary, labels = {} } = trial
    const { labels: own, annotations } = rules.find(({ alert }) => alert === alertname)!
    const alert = { exp_labels: { ...own, ...labels }, exp_annotations: { ...annotations, summary } }
    const expected = [
      { eval_time: '9m', alertname },
      { eval_time: `${at}m`, alertname, exp_alerts: [alert] },
    ]
    await expectAlerts(what, expected, everywhere && what)
  })
})

test.skipIf(!promtool)(
  'every expression of the dashboard is valid (skipped if promtool is not installed)',
  async () => {
    const { panels }: { panels: Panel[] } = JSON.parse(readFileSync(DASHBOARD, 'utf8'))
    const plain = (expr: string) => expr.replaceAll('$job', 'assay').replaceAll(/\$__\w*interval/g, '1m')
    const records = panels.flatMap(({ id, targets = [] }) =>
      targets.map(({ expr }, i) => ({ record: `panel:${id}:${i}`, expr: plain(expr) })),
    )
    expect(records.length).toBeGreaterThan(30)
    const file = join(folder, 'panels.yaml')
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'panels', rules: records }] }))
    await run(promtool!, ['check', 'rules', file])
  },
)
