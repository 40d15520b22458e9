import type { AssayCommand } from './command.ts'

/** docs/cli.md: the `--help` output of each command. */
export const createReference = (program: AssayCommand) => `# Command line

\`npm run assay -- COMMAND\` in a checkout, \`assay COMMAND\` where the package is installed, and the image's entry point.
\`npm run docs\` generates this page from the program.

Commands call a running server as an operator. \`ASSAY_URL\` is its URL (\`http://127.0.0.1:3001\`). The operator token
is \`ADMIN_TOKEN\`, or in the file \`ADMIN_TOKEN_FILE\`, or the one in \`./data\` that an embedded server created.
\`serve\`, \`migrate\` and \`doctor\` read the server's [settings](settings.md) instead.

\`--json\` prints the server's response as JSON, for scripts. \`serve\`, \`migrate\` and \`completion\` have no such response, and
refuse the option. A duration has a unit, as in the settings: \`90s\`, \`15m\`, \`1h\`, \`30d\`.

If a private CA signed the server's certificate, set \`NODE_EXTRA_CA_CERTS\` to the file of that CA's certificate. With
\`NODE_USE_ENV_PROXY=1\` the commands use the proxies of \`HTTP_PROXY\`, \`HTTPS_PROXY\` and \`NO_PROXY\`. A redirect is not
followed, because it could send the operator token to another server: set \`ASSAY_URL\` to the final URL.

A command that can't be undone asks for confirmation, or needs \`--yes\`. Tokens and passwords are typed or piped in, because
other users of the machine can read a command line.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the server refused: not found, in conflict, malformed; or \`doctor\` found something WRONG (a WARNING alone is 0) |
| 64 | the command line is wrong |
| 69 | the server or the database can't be reached |
| 75 | try again: the server is temporarily unavailable (503) or got too many requests (429); or \`status\` of a server that is not ready |
| 76 | the server is not Assay, or another version of it |
| 77 | the operator token or the API key is missing, wrong or read-only |
| 78 | a setting is wrong, for example \`ASSAY_URL\` |
| 130, 143 | ended by SIGINT or SIGTERM; a running server finishes its requests and ends with 0 |

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
