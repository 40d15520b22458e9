import { setTimeout as sleep } from 'node:timers/promises'
import type { Decision, History, Revocation } from './history.ts'
import type { Replica, Stage } from './stage.ts'

/** Clients per replica that verify, and the pause after each answer (ms). */
const VERIFIERS = 4
const BETWEEN_VERIFIES = 10
/**
 * Clients that revoke, and the pause after each (ms). A third of the revocations are of a subject, of which a customer may make
 * ten a second.
 */
const REVOKERS = 2
const BETWEEN_REVOCATIONS = 100
/** Number of live tokens kept available. */
const STOCK = 100
/** The latest revoked tokens are presented repeatedly. A violation of the bound shows soon after it or never. */
const REMEMBERED = 120
/** A request without an answer by then counts as broken (ms). */
const PATIENCE = 15_000

interface Token {
  name: string
  access: string
  refresh: string
  subject: string
}

export type Load = ReturnType<typeof startLoad>

/** Verifies at every replica and revokes at the first until stopped, with all times on this process's monotonic clock. */
export function startLoad(stage: Stage) {
  const history: History = { decisions: [], revocations: [] }
  const live = new Map<string, Token>()
  const revoked: Token[] = []
  const call = callerOf(stage)
  let named = 0
  let stopped = false

  const nextName = () => `t${named++}`

  async function issue() {
    const subject = `user-${process.pid}-${stage.replicas[0].process.port}-${Math.random()}`
    const answer = await call(0, '/issue', { json: { subject, refresh: true } })
    if (answer?.status !== 200) return
    const { access_token: access, refresh_token: refresh } = answer.json
    const token = { name: nextName(), access, refresh, subject }
    live.set(token.name, token)
  }

  /** Removes a live token for a caller that will revoke it. */
  function take(): Token | undefined {
    const token = any([...live.values()])
    if (token) live.delete(token.name)
    return token
  }

  /** Records the revocation that `act` performs. Returns the status that `act` returns. */
  async function revoke(token: Token, act: (token: Token) => Promise<number | undefined>) {
    const noted: Revocation = {
      token: token.name,
      askedAt: performance.now(),
      acknowledgedAt: undefined,
      status: undefined,
    }
    history.revocations.push(noted)
    revoked.push(token)
    if (revoked.length > REMEMBERED) revoked.shift()
    noted.status = await act(token)
    if (noted.status === 200 || noted.status === 204) noted.acknowledgedAt = performance.now()
    return noted.status
  }

  async function verify(replica: number, token: Token): Promise<Decision> {
    const sentAt = performance.now()
    const { status, age } = await present(stage.replicas[replica]!, token.access)
    const decision = { replica, token: token.name, sentAt, recordAnswer: performance.now(), status, age }
    history.decisions.push(decision)
    return decision
  }

  async function whileOn(act: () => Promise<unknown>, rest: number) {
    while (!stopped) {
      await act()
      await sleep(rest)
    }
  }

  const pick = () => (Math.random() < 0.5 ? any(revoked) : undefined) ?? any([...live.values()])
  const verifySome = async (replica: number) => {
    const token = pick()
    if (token) await verify(replica, token)
  }
  const revokeSome = async () => {
    const token = live.size > STOCK / 2 && take()
    if (token) await revoke(token, token => anyAct(call, token))
  }
  const clients = [
    ...stage.replicas.flatMap((_, replica) =>
      times(VERIFIERS, () => whileOn(() => verifySome(replica), BETWEEN_VERIFIES)),
    ),
    ...times(REVOKERS, () => whileOn(revokeSome, BETWEEN_REVOCATIONS)),
    whileOn(async () => {
      if (live.size < STOCK) await Promise.all(times(8, issue))
    }, 10),
  ]

  return {
    history,
    take,
    revoke,
    call,
    verify,
    /** Adds a token from another source, so that it is recorded like all others. The caller must revoke it. */
    adopt: (access: string): Token => ({ name: nextName(), access, refresh: '', subject: '' }),
    /** Revokes the token alone, not its session or subject. */
    revokeToken: async ({ access }: Token) => (await call(0, '/revoke', { form: { token: access } }))?.status,
    /** Whether there are enough tokens to present. */
    ready: () => live.size > STOCK / 2,
    /** Verifies a live token and records the decision like all others. */
    verifyLive: (replica: number) => verify(replica, any([...live.values()])!),
    acknowledgedSince: (at: number) =>
      history.revocations.some(({ askedAt, acknowledgedAt }) => askedAt > at && acknowledgedAt !== undefined),
    async stop(): Promise<History> {
      stopped = true
      await Promise.all(clients)
      return history
    },
  }
}

const times = <Result>(count: number, make: () => Result) => Array.from({ length: count }, make)

const any = <Item>(items: Item[]): Item | undefined => items[Math.floor(Math.random() * items.length)]

async function present({ process }: Replica, token: string) {
  try {
    const response = await fetch(`${process.url}/verify`, {
      headers: { Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(PATIENCE),
    })
    const age = response.headers.get('x-assay-age')
    return { status: response.status, age: age === null ? undefined : Number(age) }
  } catch {
    return { status: 0, age: undefined }
  }
}

type Call = ReturnType<typeof callerOf>

interface Body {
  json?: object
  form?: Record<string, string>
}

/** Calls a replica as the customer, with POST if there is a body. Undefined if no answer came. */
function callerOf({ replicas, apiKey }: Stage) {
  return async function call(replica: number, path: string, { json, form }: Body = {}) {
    try {
      const response = await fetch(replicas[replica]!.process.url + path, {
        method: form || json ? 'POST' : 'GET',
        headers: {
          Authorization: `Bearer ${apiKey}`,
          ...(json && { 'Content-Type': 'application/json' }),
        },
        ...(form ? { body: new URLSearchParams(form) } : json && { body: JSON.stringify(json) }),
        signal: AbortSignal.timeout(PATIENCE),
      })
      const text = await response.text()
      return { status: response.status, json: text.startsWith('{') ? JSON.parse(text) : {} }
    } catch {
      return undefined
    }
  }
}

/** Ends an access token in one of three ways: by the token, its session or its subject. */
async function anyAct(call: Call, { access, refresh, subject }: Token): Promise<number | undefined> {
  const acts = [
    () => call(0, '/revoke', { form: { token: access } }),
    () => call(0, '/revoke', { form: { token: refresh } }),
    () => call(0, '/api/subjects/revoke', { json: { subject } }),
  ]
  return (await any(acts)!())?.status
}
