import { SETTINGS } from './schema.ts'

/** docs/settings.md: every setting with its default and its description. */
export const createSettingsReference = () => `# Settings

Assay reads its settings from the environment. \`npm run docs\` generates this page from \`server/config/schema.ts\`.

- **Secrets** can also be in a file that \`NAME_FILE\` names. Set one of the two, not both.
  [Operators' tokens, secrets of services](operating.md#operators-tokens-and-secrets-of-services) and
  [passwords in URLs](operating.md#another-database-password) can change in their files without a restart.
- **Durations** need a unit: \`500ms\`, \`15s\`, \`5m\`, \`24h\`, \`30d\`.
- **Invalid settings** make the server exit with code 78 at start. One message lists all of them.
- **Misspelt names**, such as \`ACESS_TOKEN_TTL\`, cause a warning in the log at start.
- Scopes, lifetimes, the refresh policy, the age of keys and the tokens per minute can be set for a single customer, by its policy:
  \`npm run assay -- customers policy CUSTOMER --max-access-token-ttl 10m\`. A policy applies at once to every token that is
  issued or refreshed from then on.

| setting | default | description |
| --- | --- | --- |
${SETTINGS.map(describeRow).join('\n')}
`

const describeRow = ({ name, default: value, unset, secret, about }: (typeof SETTINGS)[number]) =>
  `| ${secret ? `\`${name}\` or \`${name}_FILE\`` : `\`${name}\``} | ${value === undefined ? unset : `\`${value}\``} | ${about} |`
