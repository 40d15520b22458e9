import { type Command, CommandError, EXIT } from '../command.ts'

export const token: Command[] = [
  {
    name: 'token',
    about: 'Issue an access token with an API key (ASSAY_API_KEY), to try things out',
    options: {
      subject: { value: 'SUBJECT', about: 'whom it is about (the customer)' },
      scope: { value: 'A B', about: 'separated by spaces' },
      'expires-in': { value: 'SECONDS', about: 'how long it lives' },
    },
    example: 'token --subject user-42 --scope read',
    async run({ api, options }) {
      const key = process.env.ASSAY_API_KEY
      if (!key) throw new CommandError(EXIT.notAllowed, 'set ASSAY_API_KEY to an API key of the customer')
      const expires = options['expires-in']
      const answer = await api.fetch('/issue', {
        method: 'POST',
        headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
        body: JSON.stringify({
          subject: options.subject,
          scope: options.scope,
          expires_in: expires === undefined ? undefined : Number(expires),
        }),
        signal: AbortSignal.timeout(10_000),
      })
      const json = (await answer.json()) as Record<string, string>
      if (!answer.ok)
        throw new CommandError(
          answer.status === 401 ? EXIT.notAllowed : answer.status === 503 ? EXIT.tryAgain : EXIT.refused,
          String(json.error_description),
        )
      return { json, text: json.access_token! }
    },
  },
]
