import type { Command, Option } from './command.ts'

const COMMON: Record<string, Option> = {
  json: { about: 'for scripts: what the server answered' },
  help: { about: 'this' },
}

export const optionsOf = ({ options = {} }: Pick<Command, 'options'>): Record<string, Option> => ({
  ...options,
  ...COMMON,
})

const flag = ([name, { value }]: [string, Option]) => `--${name}${value === undefined ? '' : ` ${value}`}`

const synopsis = ({ name, args = [] }: Command) => ['assay', name, ...args].join(' ')

const columns = (rows: [string, string][]) => {
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join('\n')
}

/** Of one command. */
export const helpOf = (command: Command) => `${command.about}.

usage: ${synopsis(command)} [options]

${columns(Object.entries(optionsOf(command)).map(option => [flag(option), option[1].about]))}

example: assay ${command.example}`

/** Of all, or of those that begin with a word. */
export function help(commands: Command[], word?: string): string {
  const shown = word === undefined ? commands : commands.filter(({ name }) => name.split(' ')[0] === word)
  return `usage: assay COMMAND [options]      assay COMMAND --help

${columns(shown.map(command => [synopsis(command).slice('assay '.length), command.about]))}

It speaks to the server at ASSAY_URL (http://127.0.0.1:3001) as an operator: ADMIN_TOKEN, ADMIN_TOKEN_FILE, or the token
in ./data that an embedded server made. serve, migrate and doctor need no server.`
}

/** docs/cli.md. */
export const markdown = (commands: Command[]) => `# Command line

\`npm run assay -- COMMAND\` in a checkout, \`assay COMMAND\` where the package is installed, and the image's entry point. This page
is made from the program: \`npm run docs\`.

It speaks to a running server as an operator. \`ASSAY_URL\` says where it is (\`http://127.0.0.1:3001\`); the operator's token is
\`ADMIN_TOKEN\`, or in the file that \`ADMIN_TOKEN_FILE\` names, or the one in \`./data\` that an embedded server made. \`serve\`,
\`migrate\` and \`doctor\` take the [settings](../README.md#settings) of the server instead.

What can't be undone asks for the customer's id again, or wants \`--yes\`. Tokens and passwords are typed or piped in: a command
line can be read by others.

| exit code | what it means |
| --- | --- |
| 0 | done |
| 1 | the server refused: not there, in conflict, malformed; or \`doctor\` found something to mend |
| 64 | the command line is wrong |
| 69 | no server, or no database, answers |
| 75 | try again: the state can't be known right now (503), or too many tries (429) |
| 76 | what answers is not Assay, or of another version |
| 77 | the operator token, or the API key, is missing, wrong, or only reads |
| 78 | the settings are wrong |
| 130, 143 | ended by SIGINT or SIGTERM; a server that listens drains and ends with 0 |

${commands.map(section).join('\n\n')}
`

const section = (command: Command) => `## ${command.name}

${command.about}.

\`\`\`
${synopsis(command)} [options]

${columns(Object.entries(optionsOf(command)).map(option => [flag(option), option[1].about]))}
\`\`\`

For example: \`assay ${command.example}\``
