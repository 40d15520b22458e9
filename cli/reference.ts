import type { AssayCommand } from './command.ts'

/** docs/cli.md: the `--help` output of each command. */
export const createReference = (program: AssayCommand) => `# Command line

\`npm run assay -- COMMAND\` in a checkout, \`assay COMMAND\` where the package is installed, and the image's entry point.
\`npm run docs\` generates this page from the program.

Commands speak to a running server as an operator. \`ASSAY_URL\` is its URL (\`http://127.0.0.1:3001\`). The operator's token
is \`ADMIN_TOKEN\`, or in the file that \`ADMIN_TOKEN_FILE\` names, or the one in \`./data\` that an embedded server made.
\`serve\`, \`migrate\` and \`doctor\` read the server's [settings](settings.md) instead.

\`--json\` prints what the server answered, for scripts. \`serve\`, \`migrate\` and \`completion\` have no such answer, and
refuse it. A duration has a unit, as in the settings: \`90s\`, \`15m\`, \`1h\`, \`30d\`.

If a private CA signed the server's certificate, \`NODE_EXTRA_CA_CERTS=FILE\` names that CA's certificate. With
\`NODE_USE_ENV_PROXY=1\` the commands use the proxies of \`HTTP_PROXY\`, \`HTTPS_PROXY\` and \`NO_PROXY\`. A redirect is not
followed, because it would carry the operator token away: \`ASSAY_URL\` is the URL that the server has in the end.

A command that can't be undone asks for the customer's id again, or needs \`--yes\`. Tokens and passwords are typed or piped
in, because other users of the machine can read a command line.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the server refused: not found, in conflict, malformed; or \`doctor\` found something to fix |
| 64 | the command line is wrong |
| 69 | no server, or no database, answers |
| 75 | try again: the state is unknown at the moment (503), or there were too many tries (429); or \`status\` of a server that is not ready |
| 76 | what answers is not Assay, or another version of it |
| 77 | the operator token or the API key is missing or wrong, or only reads |
| 78 | the settings are wrong, \`ASSAY_URL\` among them |
| 130, 143 | ended by SIGINT or SIGTERM; a server that listens drains and ends with 0 |

${program.leaves().map(describeCommand).join('\n\n')}
`

const describeCommand = (command: AssayCommand) => `## ${command.path().join(' ')}

\`\`\`
${readHelp(command).trimEnd()}
\`\`\``

/** Commander adds the example only to help that it prints. */
export function readHelp(command: AssayCommand): string {
  const parts: string[] = []
  command.configureOutput({ writeOut: text => void parts.push(text) }).outputHelp()
  return parts.join('')
}
