import { randomBytes, randomInt } from 'node:crypto'
import { expect } from 'vitest'
import type { Running } from './process.ts'
import { bearer, type Tokens } from './world.ts'

/** Client calls to a server in another process that trusts 127.0.0.1 as a proxy. */

export interface Asked {
  json?: object
  form?: Record<string, string>
  token?: string
  method?: string
}

export async function ask(at: Running, path: string, { json, form, token, method }: Asked = {}) {
  const response = await fetch(at.url + path, {
    method: method ?? (json || form ? 'POST' : 'GET'),
    headers: {
      // A random address: signups per address are limited.
      'X-Forwarded-For': `10.${randomInt(256)}.${randomInt(256)}.${randomInt(256)}`,
      ...(token && bearer(token)),
      ...(json && { 'Content-Type': 'application/json' }),
    },
    ...(json && { body: JSON.stringify(json) }),
    ...(form && { body: new URLSearchParams(form) }),
  })
  const text = await response.text()
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  return { status: response.status, json: (text.startsWith('{') ? JSON.parse(text) : {}) as any }
}

export const verify = async (at: Running, token: string) => (await ask(at, '/verify', { token })).status
export const refresh = (at: Running, refresh_token: string) =>
  ask(at, '/refresh', { form: { refresh_token } })
export const issue = async (at: Running, token: string, subject: string) =>
  (await ask(at, '/issue', { json: { subject, refresh: true }, token })).json as Tokens
export const checksOf = async (at: Running) => (await ask(at, '/readyz')).json.checks

export const ALL_WELL = { accepting: 'ok', state: 'ok', database: 'ok', migrations: 'ok' }

const PASSWORD = 'correct horse battery'

export async function signUp(at: Running) {
  const email = `${randomBytes(6).toString('hex')}@example.com`
  const { status, json } = await ask(at, '/api/auth/signup', { json: { email, password: PASSWORD } })
  expect(status).toBe(201)
  return { email, apiKey: json.api_key as string, account: json.access_token as string }
}

export const logIn = async (at: Running, email: string) =>
  (await ask(at, '/api/auth/login', { json: { email, password: PASSWORD } })).json as Tokens
