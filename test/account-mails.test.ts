import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { blocksOf, type Program, startProgram, writeProgram } from './support/page-blocks.ts'
import { type Running, startAssay, stopAll, until } from './support/process.ts'
import { readMail, startSmtp } from './support/smtp.ts'
import { copyInstallation } from './support/templates.ts'
import { bearer } from './support/world.ts'

/** The backend of docs/accounts.md as it stands there, between a real Assay and a mail server. */

const blocks = blocksOf('accounts.md')
const NEW_PASSWORD = 'a new horse battery'

const dir = mkdtempSync(join(tmpdir(), 'assay-accounts-'))
let assay: Running
let smtp: Awaited<ReturnType<typeof startSmtp>>
let backend: Program

beforeAll(async () => {
  writeProgram(dir, blocks)
  smtp = await startSmtp()
  assay = await startAssay({ DATA_DIR: copyInstallation(join(dir, 'data')) })
  backend = await startProgram(join(dir, 'accounts.js'), {
    ASSAY_URL: assay.url,
    OPERATOR_TOKEN: readFileSync(join(dir, 'data/admin.token'), 'utf8').trim(),
    SITE_URL: 'https://app.example.com',
    SMTP_URL: smtp.url,
    MAIL_FROM: 'accounts@app.example.com',
  })
})
afterAll(async () => {
  const ended = once(backend.child, 'close')
  backend.child.kill('SIGKILL')
  await Promise.all([ended, stopAll(), smtp.stop()])
  rmSync(dir, { recursive: true })
})

const post = (to: string, body: object, token?: string) =>
  fetch(to, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...(token && bearer(token)) },
    body: JSON.stringify(body),
  })

async function signUp() {
  const email = `${crypto.randomUUID()}@example.com`
  const password = 'correct horse battery staple'
  const answer = await post(`${assay.url}/api/auth/signup`, { email, password })
  const { customer, access_token } = (await answer.json()) as {
    customer: { id: string }
    access_token: string
  }
  return { id: customer.id, email, password, accessToken: access_token }
}

const findMe = async (accessToken: string) =>
  (await (await fetch(`${assay.url}/api/auth/me`, { headers: bearer(accessToken) })).json()) as object

const mailsTo = (email: string) => smtp.mails.map(readMail).filter(({ to }) => to === email)

async function tokenSentTo(email: string): Promise<string> {
  await until('the mail is there', () => mailsTo(email).length > 0)
  const { token } = mailsTo(email).at(-1)!
  return token!
}

test('the block of the page is the one that is run here', () => {
  expect(Object.keys(blocks)).toEqual(['accounts.js'])
})

test('who forgot the password gets a link, and with it a new password', async () => {
  const { email } = await signUp()
  expect((await post(`${backend.url}/forgot`, { email: ` ${email.toUpperCase()} ` })).status).toBe(202)
  const token = await tokenSentTo(email)
  expect(mailsTo(email)[0]!.text).toContain(`https://app.example.com/reset#${token}`)
  const reset = { token, password: NEW_PASSWORD }
  expect((await post(`${assay.url}/api/auth/reset`, reset)).status).toBe(204)
  const login = { email, password: NEW_PASSWORD }
  expect((await post(`${assay.url}/api/auth/login`, login)).status).toBe(200)
})

test('an unknown address is answered like a known one, and no mail is sent', async () => {
  const { email } = await signUp()
  // The search also finds a customer by the beginning of its address.
  const unknown = [`x${email}`, email.slice(0, -4), '', 'no address']
  const answers = await Promise.all(
    [email, ...unknown].map(each => post(`${backend.url}/forgot`, { email: each })),
  )
  const seen = await Promise.all(
    answers.map(async answer => {
      const headers = new Headers(answer.headers)
      headers.delete('date')
      return [answer.status, [...headers], await answer.text()]
    }),
  )
  for (const each of seen) expect(each).toEqual(seen[0])
  await tokenSentTo(email)
  // The mail of a later request shows that the earlier ones have ended.
  const { email: later } = await signUp()
  await post(`${backend.url}/forgot`, { email: later })
  await tokenSentTo(later)
  expect(mailsTo(email)).toHaveLength(1)
  expect(unknown.flatMap(mailsTo)).toEqual([])
})

test('the answer does not wait for the look-up, so that its time tells nothing', async () => {
  const { email } = await signUp()
  assay.child.kill('SIGSTOP')
  onTestFinished(() => void assay.child.kill('SIGCONT'))
  const answers = await Promise.all(
    [email, `x${email}`].map(each => post(`${backend.url}/forgot`, { email: each })),
  )
  expect(answers.map(({ status }) => status)).toEqual([202, 202])
  assay.child.kill('SIGCONT')
  await tokenSentTo(email)
})

test('an account verifies its address', async () => {
  const { email, accessToken } = await signUp()
  expect(await findMe(accessToken)).not.toHaveProperty('email_verified_at')
  expect((await post(`${backend.url}/send-verification`, {}, accessToken)).status).toBe(202)
  const token = await tokenSentTo(email)
  expect((await post(`${assay.url}/api/auth/verify-email`, { token })).status).toBe(204)
  expect(await findMe(accessToken)).toHaveProperty('email_verified_at')
})

test('an account changes its address, with its password', async () => {
  const { email, password, accessToken } = await signUp()
  const other = `${crypto.randomUUID()}@example.org`
  const change = (typed: string) =>
    post(`${backend.url}/change-email`, { email: other, password: typed }, accessToken)
  expect((await change('a guess')).status).toBe(401)
  expect(mailsTo(other)).toEqual([])
  expect((await change(password)).status).toBe(202)
  const token = await tokenSentTo(other)
  expect(await findMe(accessToken)).toMatchObject({ email })
  expect((await post(`${assay.url}/api/auth/verify-email`, { token })).status).toBe(204)
  expect(await findMe(accessToken)).toMatchObject({ email: other })
})

test('nobody without an account has a mail sent', async () => {
  const before = smtp.mails.length
  for (const token of [undefined, 'garbage'])
    for (const path of ['/send-verification', '/change-email']) {
      const body = { email: 'ann@example.org', password: 'a guess' }
      expect((await post(backend.url + path, body, token)).status).toBe(401)
    }
  expect(smtp.mails).toHaveLength(before)
})
