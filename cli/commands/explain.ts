import { api } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { list } from '../output.ts'
import { readToken } from '../terminal.ts'

export const explain = new AssayCommand('explain')
  .description(
    'Explain why a token is accepted or refused. ' +
      'It also says how to fix it. The token is read from standard input.',
  )
  .example('explain < token.txt')
  .show(async () => {
    const answer = await api.post('/admin/explain', { body: { token: await readToken() } })
    const { key, token, session } = answer
    const text = list({
      active: answer.active ? 'yes' : `no: ${answer.reason}`,
      because: answer.explanation,
      'to fix it': answer.remedy,
      customer: key?.customer_id,
      key: key && `${[key.use, key.version, key.alg].filter(Boolean).join(' ')}, ${key.state} (${key.kid})`,
      subject: token?.subject,
      'token id': token?.id,
      expires: token?.expires_at,
      session: session && describeSession(session),
      'state age': answer.age_ms === undefined ? undefined : `${answer.age_ms} ms`,
    })
    return { json: answer, text }
  })

const describeSession = ({ id, state, generation, token_generation }: Record<string, string | number>) =>
  `${id}, ${state}, generation ${generation ?? 'unknown'}; the token has ${token_generation}`
