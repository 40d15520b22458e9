import { Agent, request } from 'node:http'
import { parentPort, workerData } from 'node:worker_threads'
import { any, chance, claimsOf, versionOf } from '../tokens.ts'
import { BOARD, type Findings, type Kind, type Plan } from './board.ts'

/**
 * Connections that verify, refresh and issue without a pause. They run in a separate thread, so that the drill's other work does
 * not affect the latencies.
 */

/** Number of tokens kept per version and for all other customers, to be presented repeatedly. */
const KEPT = 40
/** Number of sessions that stay idle until the load ends, so that the oldest versions are used after every rotation. */
const SLEEPERS = 30

interface Tokens {
  customer: number
  access: string
  refresh: string
}

const { ports, connections, apiKeys, board } = workerData as Plan
const shared = new Int32Array(board)
const findings: Findings = {
  requests: { verify: 0, refresh: 0, issue: 0 },
  failures: [],
  verified: new Map(),
  refreshed: new Map(),
  quiet: [],
  rotating: [],
}
const awake: Tokens[] = []
const sleepers: Tokens[] = []
const ofVersion = new Map<number, string[]>()
const ofOthers: string[] = []

type Connection = ReturnType<typeof connect>

/** One keep-alive connection. Status 0 means that it broke. */
function connect(port: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  return function send(method: string, path: string, bearer: string | undefined, body?: object) {
    const text = body && JSON.stringify(body)
    return new Promise<{ status: number; body: string }>(resolve => {
      const sent = request({ agent, port, host: '127.0.0.1', method, path }, response => {
        let received = ''
        response.setEncoding('latin1').on('data', chunk => {
          received += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode!, body: received }))
        response.on('error', () => resolve({ status: 0, body: '' }))
      })
      sent.on('error', () => resolve({ status: 0, body: '' }))
      if (bearer !== undefined) sent.setHeader('Authorization', `Bearer ${bearer}`)
      if (text !== undefined) sent.setHeader('Content-Type', 'application/json')
      sent.end(text)
    })
  }
}

/** Undefined if the request failed; the failure is recorded. */
async function counted(kind: Kind, version: number, sending: ReturnType<Connection>) {
  const { status, body } = await sending
  Atomics.add(shared, BOARD.requests, 1)
  findings.requests[kind]++
  if (status === 200) return body
  const error = body.startsWith('{') ? JSON.parse(body).error : ''
  findings.failures.push(`${kind} with version ${version}: ${status} ${error}`)
  return undefined
}

async function verify(send: Connection) {
  const ofRotated = chance(0.5)
  const token = any(ofRotated ? (any([...ofVersion.values()]) ?? []) : ofOthers)
  if (token === undefined) return issue(send)
  const [version, phase] = [versionOf(token), Atomics.load(shared, BOARD.rotating)]
  const sentAt = performance.now()
  const accepted = (await counted('verify', version, send('GET', '/verify', token))) !== undefined
  if (!ofRotated) findings[phase === 1 ? 'rotating' : 'quiet'].push(performance.now() - sentAt)
  else if (accepted) findings.verified.set(version, (findings.verified.get(version) ?? 0) + 1)
}

async function issue(send: Connection) {
  const customer = Math.floor(Math.random() * apiKeys.length)
  const body = await counted('issue', 0, send('POST', '/issue', apiKeys[customer], { refresh: true }))
  if (body === undefined) return
  const { access_token: access, refresh_token: refresh } = JSON.parse(body)
  const isSleeper = customer === 0 && sleepers.length < SLEEPERS
  const tokens = { customer, access, refresh }
  if (isSleeper) sleepers.push(tokens)
  else awake.push(tokens)
  keep(tokens)
}

async function refresh(send: Connection) {
  const [tokens] = awake.splice(Math.floor(Math.random() * awake.length), 1)
  if (!tokens) return issue(send)
  await refreshOne(send, tokens)
}

async function refreshOne(send: Connection, tokens: Tokens) {
  const version = versionOf(tokens.refresh)
  const json = { refresh_token: tokens.refresh }
  const body = await counted('refresh', version, send('POST', '/refresh', undefined, json))
  if (body === undefined) return
  if (tokens.customer === 0) findings.refreshed.set(version, (findings.refreshed.get(version) ?? 0) + 1)
  const { access_token: access, refresh_token } = JSON.parse(body)
  const next = { ...tokens, access, refresh: refresh_token }
  if (claimsOf(next.refresh).gen !== claimsOf(tokens.refresh).gen + 1)
    findings.failures.push('refresh: the successor is not the next generation')
  awake.push(next)
  keep(next)
}

/** Keeps the oldest tokens of each version, which are presented until the end. */
function keep({ customer, access }: Tokens) {
  if (customer !== 0) {
    ofOthers[Math.floor(Math.random() * KEPT * 4) % (ofOthers.length + 1)] = access
    return
  }
  const version = versionOf(access)
  const kept = ofVersion.get(version) ?? []
  if (kept.length < KEPT) ofVersion.set(version, [...kept, access])
}

async function client(port: number) {
  const send = connect(port)
  while (Atomics.load(shared, BOARD.stop) === 0) {
    const act = chance(0.85) ? verify : chance(0.6) ? refresh : issue
    await act(send)
  }
}

await Promise.all(Array.from({ length: connections }, (_, index) => client(ports[index % ports.length]!)))
const last = connect(ports[0]!)
for (const sleeper of sleepers) await refreshOne(last, sleeper)
for (const [version, [token]] of ofVersion) {
  const accepted = (await counted('verify', version, last('GET', '/verify', token))) !== undefined
  if (accepted) findings.verified.set(version, (findings.verified.get(version) ?? 0) + 1)
}
parentPort!.postMessage(findings)
