import { setTimeout as sleep } from 'node:timers/promises'
import type { Stage } from '../stage.ts'

export interface Answer {
  /** 0 if no answer came. */
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  json: any
  /** A server accepted the connection, so the act may have been done even if no answer or a 503 came. */
  reached: boolean
}

/** The answer after all retries. `cut`: an attempt before the last one may have succeeded. */
export type Insisted = Answer & { cut: boolean }

export interface Request {
  method?: string
  replica?: number
  bearer?: string
  json?: object
  form?: Record<string, string>
  headers?: Record<string, string>
}

/** A call that was sent but got no answer or a 503. Times are milliseconds of this process's monotonic clock. */
interface Broken {
  replica: number
  sentAt: number
  brokenAt: number
}

/** A client without an answer for this long has lost its service (ms). */
const PATIENCE = 60_000
const BETWEEN_TRIES = 30

export type Calls = ReturnType<typeof callsTo>

export function callsTo({ replicas }: Stage) {
  const underWay = new Set<{ replica: number }>()
  const broken: Broken[] = []

  async function call(path: string, request: Request = {}): Promise<Answer> {
    const { replica = Math.floor(Math.random() * replicas.length) } = request
    const sentAt = performance.now()
    const noted = { replica }
    underWay.add(noted)
    const answer = await send(replicas[replica]!.process.url + path, request)
    underWay.delete(noted)
    if (answer.reached && (answer.status === 0 || answer.status === 503))
      broken.push({ replica, sentAt, brokenAt: performance.now() })
    return answer
  }

  /** Retries until it is answered, as an honest client does, at a random replica unless one is given. */
  async function insist(
    path: string,
    request: Request,
    afterCut: () => Promise<void> = async () => {},
  ): Promise<Insisted> {
    const end = performance.now() + PATIENCE
    let cut = false
    for (;;) {
      const answer = await call(path, request)
      if (answer.status !== 0 && answer.status !== 503) return { ...answer, cut }
      if (performance.now() > end) throw new Error(`${path} got no answer for ${PATIENCE} ms`)
      if (answer.reached && !cut) {
        cut = true
        await afterCut()
      }
      await sleep(BETWEEN_TRIES)
    }
  }

  return {
    call,
    insist,
    underWay: (victims: number[]) => [...underWay].filter(({ replica }) => victims.includes(replica)).length,
    /** How many of the calls in flight at these replicas at that moment got no answer or a 503. */
    brokenAt: (victims: number[], at: number) =>
      broken.filter(
        ({ replica, sentAt, brokenAt }) => victims.includes(replica) && sentAt <= at && brokenAt >= at,
      ).length,
  }
}

async function send(url: string, { method = 'POST', bearer, json, form, headers }: Request): Promise<Answer> {
  const body = form ? new URLSearchParams(form) : json && JSON.stringify(json)
  try {
    const response = await fetch(url, {
      method,
      headers: {
        ...(bearer !== undefined && { Authorization: `Bearer ${bearer}` }),
        ...(json && { 'Content-Type': 'application/json' }),
        ...headers,
      },
      ...(body && { body }),
      signal: AbortSignal.timeout(PATIENCE / 4),
    })
    const text = await response.text()
    return { status: response.status, json: text.startsWith('{') ? JSON.parse(text) : {}, reached: true }
  } catch (error) {
    return { status: 0, json: {}, reached: !isRefusal(error) }
  }
}

/** No server was listening, so nothing was done. */
const isRefusal = (error: unknown) =>
  ((error as Error).cause as { code?: string } | undefined)?.code === 'ECONNREFUSED'
