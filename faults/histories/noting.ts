import type { Stage } from '../stage.ts'
import type { Ask } from './asks.ts'
import type { Call } from './call.ts'
import { grantOf } from './holdings.ts'
import type { Names } from './names.ts'

/** Longer than any deadline of the server, of which one act may meet several; after that no answer will come (ms). */
const PATIENCE = 30_000

export interface Answer {
  call: Call
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  json: any
}

export type Send = ReturnType<typeof noting>

/** Sends a call and records it with its answer. */
export function noting({ replicas }: Stage, names: Names, calls: Call[]) {
  return async function send(client: string, replica: number, ask: Ask): Promise<Answer> {
    const sentAt = performance.now()
    const { status, age, json } = await exchange(replicas[replica]!.process.url, ask)
    const times = { sentAt, recordAnswer: performance.now() }
    const call: Call = { client, replica, act: ask.act, ...times, status, ...age, ...saidBy(names, json) }
    calls.push(call)
    return { call, json }
  }
}

async function exchange(url: string, ask: Ask) {
  try {
    const response = await fetch(url + ask.path, requestOf(ask))
    const age = response.headers.get('x-assay-age')
    const text = await response.text()
    const json: Answer['json'] = text.startsWith('{') ? JSON.parse(text) : {}
    return { status: response.status, json, age: age === null ? {} : { age: Number(age) } }
  } catch {
    return { status: 0, json: {} }
  }
}

const requestOf = ({ method, bearer, json, form, headers }: Ask): RequestInit => ({
  method,
  headers: {
    ...headers,
    ...(bearer !== undefined && { Authorization: `Bearer ${bearer}` }),
    ...(json && { 'Content-Type': 'application/json' }),
  },
  ...(form ? { body: new URLSearchParams(form) } : json && { body: JSON.stringify(json) }),
  signal: AbortSignal.timeout(PATIENCE),
})

function saidBy(names: Names, json: Answer['json']): Partial<Call> {
  return {
    ...(json.error && { error: errorOf(json) }),
    ...(typeof json.active === 'boolean' && { active: json.active }),
    ...(json.access_token && { granted: grantOf(names, json) }),
    ...(json.versions && { versions: versionsOf(json.versions) }),
  }
}

/** Reuse is reported as an ordinary invalid_grant (RFC 6749 5.2); only its description differs. */
const errorOf = ({ error, error_description: words }: Record<string, string>) =>
  error === 'invalid_grant' && words?.includes('used before') ? 'reuse' : error!

const versionsOf = (versions: { use: string; version: number }[]) =>
  Object.fromEntries(versions.map(({ use, version }) => [use, version]))
