import type { Answer } from '../client.ts'
import type { Command } from '../command.ts'
import { CommandError, EXIT } from '../command.ts'
import { span, table } from '../output.ts'

export const status: Command[] = [
  {
    name: 'status',
    about: 'Whether the server is ready, and which replicas there are',
    example: 'status',
    async run({ api }) {
      const answer = await api.fetch('/readyz', { signal: AbortSignal.timeout(10_000) })
      const { status, checks } = (await answer.json().catch(() => ({}))) as Answer
      if (checks === undefined)
        throw new CommandError(
          EXIT.notAssay,
          `what answers at ${api.url} is not Assay; ASSAY_URL names another`,
        )
      const { replicas } = await api.get('/admin/replicas')
      const row = (one: Answer) => [one.id, one.version, one.applied, one.behind, span(one.age_ms)]
      const words = Object.entries(checks).map(([name, word]) => `${name} ${word}`)
      return {
        json: { status, checks, replicas },
        text: `${api.url}: ${status} (${words.join(', ')})\n\n${table(['replica', 'version', 'applied', 'behind', 'last poll'], replicas.map(row))}`,
      }
    },
  },
]
