/** The start-up banner: the server's URL, and commands to paste that lead to a verified token. */
export function banner({
  host,
  port,
  folder,
  made,
  signup,
}: {
  host: string
  port: number
  folder: string | undefined
  /** The place of a newly created installation; undefined if there was one already. */
  made: string | undefined
  signup: 'open' | 'closed'
}): string {
  const url = `http://${nameOf(host)}:${port}`
  return `
  Assay listens on ${url}${folder === undefined ? '' : ` (embedded database and keys in ${folder})`}
${made === undefined ? '' : newcomer(made, folder === undefined ? 'DATABASE_URL' : 'DATA_DIR')}
${signup === 'open' ? signUp(url) : create(url, folder)}
    curl -i ${url}/verify -H "Authorization: Bearer $TOKEN"

`
}

const JSON_TYPE = `-H 'Content-Type: application/json'`
const field = (name: string) => `sed -n 's/.*"${name}":"\\([^"]*\\)".*/\\1/p'`

const signUp = (url: string) => `  Sign up a customer, and let its token through:

    TOKEN=$(curl -s ${url}/api/auth/signup ${JSON_TYPE} \\
      -d "{\\"email\\":\\"me-$RANDOM@example.com\\",\\"password\\":\\"correct horse battery\\"}" \\
      | ${field('access_token')})`

/** For when sign-up is closed. An embedded server has a file with the operator's token, unless the settings have one. */
function create(url: string, folder: string | undefined): string {
  const token = `\${ADMIN_TOKEN:-$(cat '${folder}/admin.token')}`
  return `  As the operator, create a customer, and let its token through:
${folder === undefined ? '' : `\n    ADMIN_TOKEN="${token}"`}
    KEY=$(curl -s ${url}/admin/customers -H "Authorization: Bearer $ADMIN_TOKEN" ${JSON_TYPE} \\
      -d "{\\"email\\":\\"me-$RANDOM@example.com\\"}" | ${field('api_key')})
    TOKEN=$(curl -s ${url}/issue -H "Authorization: Bearer $KEY" ${JSON_TYPE} \\
      -d '{"subject":"user-42"}' | ${field('access_token')})`
}

const newcomer = (place: string, setting: string) => `
  This is a NEW INSTALLATION, made in ${place}.
  If there were customers before, stop it: ${setting} leads to the wrong place, and all their tokens are refused.
`

const HERE = ['0.0.0.0', '127.0.0.1', '::', '::1']

/**
 * Formats the host for a URL: IPv6 addresses get brackets, wildcard and loopback addresses become localhost.
 */
function nameOf(host: string): string {
  if (HERE.includes(host)) return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
