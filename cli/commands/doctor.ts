import type { Command } from '../command.ts'
import { CommandError, EXIT } from '../command.ts'
import type { Finding } from '../doctor/result.ts'
import { runChecks } from '../doctor/run.ts'

export const doctor: Command[] = [
  {
    name: 'doctor',
    about:
      'Look for what is wrong with the settings, the database, Redis and a running server, and say what to do',
    options: { offline: { about: 'without the round trip through a running server' } },
    example: 'doctor',
    async run({ api, options, terminal }) {
      const findings = await runChecks(process.env, options.offline ? undefined : api)
      const bad = findings.filter(({ state }) => state !== 'ok')
      const text = findings.map(line).join('\n')
      if (bad.some(({ state }) => state === 'wrong')) {
        terminal.out(`${options.json ? JSON.stringify(findings, undefined, 2) : text}\n`)
        throw new CommandError(EXIT.refused, `${bad.length} of ${findings.length} checks found something`)
      }
      return { json: findings, text }
    },
  },
]

const MARK = { ok: 'ok     ', warning: 'WARNING', wrong: 'WRONG  ' }

const line = ({ state, check, found, remedy }: Finding) =>
  `${MARK[state]}  ${check}: ${found}${remedy === undefined ? '' : `\n         -> ${remedy}`}`
