import { api } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { parseDuration } from '../duration.ts'
import { CommandError, EXIT } from '../errors.ts'

const TIMEOUT_MS = 10_000

interface TokenOptions {
  subject?: string
  scope?: string
  expiresIn?: number
}

export const token = new AssayCommand('token')
  .description('Issue an access token with an API key, to try things out. The API key is ASSAY_API_KEY.')
  .option('--subject <subject>', 'its subject (default: the customer)')
  .option('--scope <scopes>', 'its scopes, separated by spaces')
  .option('--expires-in <duration>', 'its lifetime', parseDuration(1, '5m'))
  .example('token --subject user-42 --scope read')
  .show(async (options: TokenOptions) => {
    const answer = await requestToken(options)
    const json = (await answer.json()) as Record<string, string>
    if (!answer.ok) throw new CommandError(toExitCode(answer.status), String(json.error_description))
    return { json, text: json.access_token! }
  })

function requestToken({ subject, scope, expiresIn }: TokenOptions): Promise<Response> {
  const key = process.env.ASSAY_API_KEY
  if (!key) throw new CommandError(EXIT.notAllowed, 'set ASSAY_API_KEY to an API key of the customer')
  return api.fetch('/issue', {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ subject, scope, expires_in: expiresIn }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })
}

const toExitCode = (status: number) =>
  status === 401 ? EXIT.notAllowed : status === 503 ? EXIT.tryAgain : EXIT.refused
