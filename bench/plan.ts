/** The requests to a contender, and the conditions that every answer must meet. */
export interface Plan {
  /** Sent in round-robin order. */
  requests: Ask[]
  status: number
  /** Text that every answer's body contains. Empty means no condition. */
  contains: string
  /** Text that no answer's body contains. */
  lacks?: string
  /** A header that every answer has. */
  header?: string
  /** A round starts where the previous one ended. It fails if it would send a request twice. */
  goesOn?: true
  /** Each request is sent only once; a round ends early when all were sent. */
  once?: true
  /** Index of the first request of the next round, if `goesOn` is set. */
  from?: number
  /** This member of an answer's JSON replaces `{next}` in a later request, because a rotated token can be used only once. */
  follow?: { member: string }
}

export interface Ask {
  method: string
  path: string
  headers: Record<string, string>
  body?: string
  /** The first value of `{next}` in the body. */
  next?: string
}

/** The plan as a Lua table for wrk.lua. */
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

/** Maximum number of requests in one Lua function, which is limited to 65,536 constants. */
const PART = 10_000

const nextOf = ({ next }: Ask) => (next === undefined ? '' : `, next = ${quoted(next)}`)

function headOf({ method, path, headers, body }: Ask): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${lines.join('')}${body === undefined ? '\r\n' : ''}`
}

/** An ASCII string in JSON is also a valid Lua string. */
function quoted(text: string): string {
  if (!/^[\r\n\x20-\x7e]*$/.test(text)) throw new Error('a plan must be ASCII')
  return JSON.stringify(text)
}
