/** What a newcomer needs: where it is, and two commands to paste that end in a verified token. */
export function banner({
  host,
  port,
  folder,
  made,
}: {
  host: string
  port: number
  folder: string | undefined
  /** Where an installation was made. */
  made: string | undefined
}): string {
  const url = `http://${nameOf(host)}:${port}`
  return `
  Assay listens on ${url}${folder === undefined ? '' : ` (embedded database and keys in ${folder})`}
${made === undefined ? '' : newcomer(made, folder === undefined ? 'DATABASE_URL' : 'DATA_DIR')}
  Sign up a customer, and let its token through:

    TOKEN=$(curl -s ${url}/api/auth/signup -H 'Content-Type: application/json' \\
      -d "{\\"email\\":\\"me-$RANDOM@example.com\\",\\"password\\":\\"correct horse battery\\"}" \\
      | sed -n 's/.*"access_token":"\\([^"]*\\)".*/\\1/p')
    curl -i ${url}/verify -H "Authorization: Bearer $TOKEN"

`
}

const newcomer = (place: string, setting: string) => `
  This is a NEW INSTALLATION, made in ${place}.
  If there were customers before, stop it: ${setting} leads to the wrong place, and all their tokens are refused.
`

const HERE = ['0.0.0.0', '127.0.0.1', '::', '::1']

/** As a URL has it. */
function nameOf(host: string): string {
  if (HERE.includes(host)) return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
