import { checkResponse } from './openapi.ts'
import { freePort } from './port.ts'
import type { Replica, World } from './world.ts'

/** A replica for clients that discover everything from its address: its issuer is the address where `serve` will listen. */
export async function makeDiscoverable(world: World): Promise<{ assay: Replica; issuer: string }> {
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}`
  return { assay: await world.replica({ PORT: String(port), ISSUER: issuer }), issuer }
}

/** A request as the client sent it. */
export interface Sent {
  path: string
  headers: Headers
}

/** The arguments of the clients' fetch hooks. */
type Init = { method?: string; headers?: Record<string, string>; body?: unknown }

/** A fetch over real HTTP that checks every answer against openapi.yaml and records the requests. */
export function checkedFetch() {
  const sent: Sent[] = []
  async function fetchChecked(url: string, init: Init = {}): Promise<Response> {
    const request = new Request(url, init as RequestInit)
    const { pathname: path, search } = new URL(url)
    sent.push({ path, headers: request.headers })
    const response = await fetch(request)
    const { status, headers } = response
    const body = await response.clone().text()
    checkResponse({ method: request.method, path: path + search }, { status, headers, body })
    return response
  }
  return Object.assign(fetchChecked, { sent })
}

/** The two parts of the Basic credentials as sent, still encoded. */
export function basicPair({ headers }: Sent): [string, string] {
  const pair = Buffer.from(headers.get('authorization')!.replace('Basic ', ''), 'base64').toString()
  const colon = pair.indexOf(':')
  return [pair.slice(0, colon), pair.slice(colon + 1)]
}
