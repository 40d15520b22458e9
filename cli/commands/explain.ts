import type { Command } from '../command.ts'
import { listing } from '../output.ts'
import { tokenFrom } from './revoke.ts'

export const explain: Command[] = [
  {
    name: 'explain',
    about: 'Why a token is accepted or refused, and what would mend it; it is read from what is piped in',
    example: 'explain < token.txt',
    async run({ api, terminal }) {
      const why = await api.post('/admin/explain', { body: { token: await tokenFrom(terminal) } })
      const { key, token, session } = why
      return {
        json: why,
        text: listing({
          active: why.active ? 'yes' : `no: ${why.reason}`,
          because: why.explanation,
          'to mend it': why.remedy,
          customer: key?.customer_id,
          key: key && `${key.use} ${key.version}, ${key.state} (${key.kid})`,
          subject: token?.subject,
          'token id': token?.id,
          expires: token?.expires_at,
          session: session && sessionInWords(session),
          'state is': why.age_ms === undefined ? undefined : `${why.age_ms} ms old`,
        }),
      }
    },
  },
]

const sessionInWords = ({ id, state, generation, token_generation }: Record<string, string | number>) =>
  `${id}, ${state}, generation ${generation ?? 'unknown'}; the token's is ${token_generation}`
