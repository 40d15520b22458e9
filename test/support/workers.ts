import { Agent, request } from 'node:http'
import { logLines, type Running, until } from './process.ts'

/** A server with several processes: their ids, and connections to a certain worker. */

/** The pid in each slot, by the latest log line. */
export const pidOf = (assay: Running, worker: number): number =>
  logLines(assay).findLast(line => line.msg === 'a worker is listening' && line.worker === worker)?.pid

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Kills the worker in this slot, and resolves once another listens in it. */
export async function replaceWorker(assay: Running, worker: number) {
  const pid = pidOf(assay, worker)
  process.kill(pid, 'SIGKILL')
  await until(`worker ${worker} is replaced`, () => pidOf(assay, worker) !== pid)
}

export interface Answer {
  status: number
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  json: any
}

export interface Call {
  method?: string
  token?: string
  /** JSON, or a form. */
  body?: object | URLSearchParams
  headers?: Record<string, string>
}

export type Connection = ReturnType<typeof connect>

/** The longest time without a byte (ms). If a worker dies just after it got a connection, the connection is not even closed. */
const PATIENCE = 10_000

/** One persistent connection: all requests on it reach the same worker. */
export function connect(assay: Running) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const ask = (path: string, call: Call = {}) =>
    new Promise<Answer>((resolve, reject) => {
      const { method = call.body ? 'POST' : 'GET', body, token } = call
      const form = body instanceof URLSearchParams
      const headers = {
        ...(body && { 'Content-Type': form ? 'application/x-www-form-urlencoded' : 'application/json' }),
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...call.headers,
      }
      const sent = request(assay.url + path, { agent, method, headers, timeout: PATIENCE }, response => {
        let text = ''
        response.setEncoding('utf8').on('data', chunk => {
          text += chunk
        })
        response.on('error', reject).on('end', () => {
          const json = text.startsWith('{') ? JSON.parse(text) : {}
          resolve({ status: response.statusCode ?? 0, text, json })
        })
      })
      sent.on('timeout', () => sent.destroy(new Error('no answer in time')))
      sent.on('error', reject).end(form ? body.toString() : body && JSON.stringify(body))
    })
  return { ask, worker: () => workerOf(assay, ask), close: () => agent.destroy() }
}

let asked = 0

/** The worker that answers here, by the log line of the request. */
async function workerOf(assay: Running, ask: Connection['ask']): Promise<number> {
  const id = `who-${process.pid}-${asked++}`
  await ask('/who', { headers: { 'X-Request-Id': id } })
  const line = () => logLines(assay).find(({ requestId }) => requestId === id)
  await until('its line is in the log', () => line() !== undefined)
  return line().worker
}

/** A connection to the worker in this slot. */
export async function connectTo(assay: Running, worker: number): Promise<Connection> {
  for (let tries = 0; tries < 100; tries++) {
    const connection = connect(assay)
    if ((await connection.worker()) === worker) return connection
    connection.close()
  }
  throw new Error(`a hundred connections, and none was for worker ${worker}`)
}
