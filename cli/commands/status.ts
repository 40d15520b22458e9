import { api, type Json } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { formatMilliseconds, table } from '../output.ts'

const TIMEOUT_MS = 10_000

export const status = new AssayCommand('status')
  .description('Show whether the server is ready, and its replicas.')
  .example('status')
  .show(async () => {
    const answer = await api.fetch('/readyz', { signal: AbortSignal.timeout(TIMEOUT_MS) })
    const { status, checks } = (await answer.json().catch(() => ({}))) as Json
    if (checks === undefined) throw api.notAssay()
    const { replicas } = await api.get('/admin/replicas')
    const words = Object.entries(checks).map(([name, word]) => `${name} ${word}`)
    const row = (one: Json) => [one.id, one.version, one.applied, one.behind, formatMilliseconds(one.age_ms)]
    const rows = table(['replica', 'version', 'applied', 'behind', 'last poll'], replicas.map(row))
    return {
      json: { status, checks, replicas },
      text: `${api.url}: ${status} (${words.join(', ')})\n\n${rows}`,
    }
  })
