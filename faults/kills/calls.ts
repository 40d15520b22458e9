import { setTimeout as sleep } from 'node:timers/promises'
import type { Stage } from '../stage.ts'

export interface Answer {
  /** 0: none came. */
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  json: any
  /** Somebody was there, so that it may have been done though the answer is none, or a 503. */
  reached: boolean
}

/** After as many tries as it took. `cut`: one before the last may have been done. */
export type Insisted = Answer & { cut: boolean }

export interface Request {
  method?: string
  replica?: number
  bearer?: string
  json?: object
  form?: Record<string, string>
  headers?: Record<string, string>
}

/** A call that was sent and not answered, or by 503. Times are of this process's monotonic clock (ms). */
interface Broken {
  replica: number
  sentAt: number
  brokenAt: number
}

/** Whoever is not answered for so long has lost its service (ms). */
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

  /** Tries until it is answered, as an honest client does, at whichever replica unless one is named. */
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
      if (performance.now() > end) throw new Error(`${path} was not answered for ${PATIENCE} ms`)
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
    /** Of the calls that were under way at these replicas at that moment, how many were never answered by what was asked. */
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

/** Nobody listened, so that nobody acted. */
const isRefusal = (error: unknown) =>
  ((error as Error).cause as { code?: string } | undefined)?.code === 'ECONNREFUSED'
