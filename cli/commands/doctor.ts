import { api } from '../client.ts'
import { AssayCommand } from '../command.ts'
import type { Finding } from '../doctor/result.ts'
import { EXIT } from '../errors.ts'
import { terminal } from '../terminal.ts'

export const doctor = new AssayCommand('doctor')
  .description(
    'Check the installation, and say how to fix what is wrong. ' +
      'It checks the settings, the database, Redis and a running server.',
  )
  .option('--offline', 'skip the check of a running server')
  .example('doctor')
  .show(async ({ offline }: { offline?: true }) => {
    // Loaded only here: it loads the database's driver.
    const { runChecks } = await import('../doctor/run.ts')
    const findings = await runChecks(process.env, offline ? undefined : api)
    if (findings.some(({ state }) => state === 'wrong')) fail(findings)
    return { json: findings, text: findings.map(describe).join('\n') }
  })

function fail(findings: Finding[]) {
  const bad = findings.filter(({ state }) => state !== 'ok')
  terminal.tell(`assay: ${bad.length} of ${findings.length} checks need attention\n`)
  process.exitCode = EXIT.refused
}

const MARK = { ok: 'ok     ', warning: 'WARNING', wrong: 'WRONG  ' }

const describe = ({ state, check, found, remedy }: Finding) =>
  `${MARK[state]}  ${check}: ${found}${remedy === undefined ? '' : `\n         -> ${remedy}`}`
