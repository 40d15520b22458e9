/** What a contender is asked, and what every one of its answers must be. */
export interface Plan {
  /** Sent round robin. */
  requests: Ask[]
  status: number
  /** Every answer's body holds this text; empty: nothing is asked of it. */
  contains: string
  /** No answer's body holds this text. */
  lacks?: string
  /** Every answer has this header. */
  header?: string
  /** A round begins where the one before has ended, and no request is sent twice in a round: otherwise it fails. */
  goesOn?: true
  /** No request is sent twice: a round ends when all were sent, if its time isn't over before. */
  once?: true
  /** The request that a plan which goes on begins with. */
  from?: number
  /** This member of an answer's JSON takes the place of `{next}` in a later request: what is rotated is used once. */
  follow?: { member: string }
}

export interface Ask {
  method: string
  path: string
  headers: Record<string, string>
  body?: string
  /** What stands for `{next}` in the body the first time. */
  next?: string
}

/** The plan as the table that wrk.lua reads. */
export function toLua({ requests, status, contains, lacks, header, follow, once }: Plan): string {
  const asks = requests.map(
    ask => `add { head = ${quoted(headOf(ask))}, body = ${quoted(ask.body ?? '')}${nextOf(ask)} }`,
  )
  const parts = Array.from({ length: Math.ceil(asks.length / PART) }, (_, i) =>
    asks.slice(i * PART, (i + 1) * PART).join('\n'),
  )
  return `local requests = {}
local function add(ask) requests[#requests + 1] = ask end
${parts.map(part => `;(function()\n${part}\nend)()`).join('\n')}
return {
  status = ${status}, contains = ${quoted(contains)}, lacks = ${quoted(lacks ?? '')}, header = ${quoted(header ?? '')},
  follow = ${quoted(follow?.member ?? '')}, once = ${once ?? false}, requests = requests }\n`
}

/** Requests of one function of Lua's, which has room for 65,536 constants. */
const PART = 10_000

const nextOf = ({ next }: Ask) => (next === undefined ? '' : `, next = ${quoted(next)}`)

function headOf({ method, path, headers, body }: Ask): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${lines.join('')}${body === undefined ? '\r\n' : ''}`
}

/** ASCII as JSON writes it is a Lua string too. */
function quoted(text: string): string {
  if (!/^[\r\n\x20-\x7e]*$/.test(text)) throw new Error('a plan is ASCII')
  return JSON.stringify(text)
}
