import { claimsOf } from '../tokens.ts'
import type { Answer, Calls, Insisted, Request } from './calls.ts'
import { type Customer, fresh, sessionOf } from './held.ts'
import { auditName, type Ledger } from './ledger.ts'
import type { SessionActs } from './sessions.ts'

const PASSWORD = 'a long password'
/** Deadline for a change to be known at every replica: the bound is 5 s, plus a second for a busy machine (ms). */
const KNOWN_WITHIN = 6_000
/** The maximum number of emergency rotations that may interrupt one attempt. */
const MOST_EMERGENCIES = 50

/** Customers that sign up and manage their API keys. */
export function accountActs({ insist }: Calls, ledger: Ledger, { refresh }: SessionActs) {
  const renewals = new Map<Customer, Promise<void>>()
  const deleting = new Set<string>()

  async function signUp(hasEmergencies: boolean): Promise<Customer | undefined> {
    const json = { email: `${fresh('someone')}@example.com`, password: PASSWORD }
    const request = { json, headers: address() }
    const answer = await insist('/api/auth/signup', request)
    if (answer.cut) ledger.wasCut('signup', answer.status === 409)
    // The answer to the successful attempt was lost, and with it the API key.
    const made = answer.cut && answer.status === 409 ? await insist('/api/auth/login', request) : answer
    if (![200, 201].includes(made.status)) return ledger.odd('signup', made)
    const customer = newCustomer(made, hasEmergencies)
    ledger.acknowledge('signup', auditName('issued', claimsOf(customer.account.access).jti))
    ledger.facts.push({ what: `the account ${customer.id}`, holds: replica => isItself(customer, replica) })
    if (made.status === 201) return customer
    customer.apiKey = (await createKey(customer))?.text ?? ''
    customer.keys = []
    return customer
  }

  function newCustomer({ json }: Answer, hasEmergencies: boolean): Customer {
    const customer = { id: json.customer.id, apiKey: json.api_key, keys: [], busy: false, issued: [] }
    const holder = { ...customer, hasEmergencies, account: undefined as never } as Customer
    holder.account = sessionOf(holder, json)
    return holder
  }

  /** Calls with the customer's own access token. An emergency may have ended that token, but never the session. */
  async function asItself(customer: Customer, path: string, request: Request = {}): Promise<Insisted> {
    let cut = false
    for (let tries = 1; ; tries++) {
      const { access: bearer } = customer.account
      const answer = await insist(path, { ...request, bearer })
      cut ||= answer.cut
      if (answer.status !== 401 || !customer.hasEmergencies || tries === MOST_EMERGENCIES)
        return { ...answer, cut }
      if (bearer === customer.account.access) await renew(customer)
    }
  }

  /** One renewal at a time; other callers that need a new token wait for it. */
  function renew(customer: Customer): Promise<void> {
    const renewal =
      renewals.get(customer) ?? refresh(customer.account).finally(() => renewals.delete(customer))
    renewals.set(customer, renewal)
    return renewal
  }

  async function isItself(customer: Customer, replica: number): Promise<boolean> {
    return (await asItself(customer, '/api/auth/me', { method: 'GET', replica })).status === 200
  }

  async function createKey(customer: Customer) {
    const name = fresh('key')
    const json = { name, scopes: ['*', 'assay:sessions'] }
    const answer = await asItself(customer, '/api/keys', { json })
    if (answer.cut) ledger.wasCut('create API key', (await keysNamed(customer, name)) > 1)
    if (answer.status !== 201) return ledger.odd('create API key', answer)
    const key = { id: answer.json.id as string, text: answer.json.api_key as string }
    customer.keys.push(key)
    ledger.acknowledge('create API key', auditName('api_key.created', key.id))
    ledger.facts.push({
      what: `API key ${key.id}`,
      // Another client may have started to delete it since.
      holds: async replica => (await present(key.text, replica)) === 200 || deleting.has(key.id),
    })
    return key
  }

  async function keysNamed(customer: Customer, wanted: string): Promise<number> {
    const { status, json } = await asItself(customer, '/api/keys', { method: 'GET' })
    if (status !== 200) return 0
    return json.keys.filter(({ name }: { name: string }) => name === wanted).length
  }

  async function deleteKey(customer: Customer): Promise<void> {
    const key = customer.keys.shift()
    if (!key) return
    deleting.add(key.id)
    const answer = await asItself(customer, `/api/keys/${key.id}`, { method: 'DELETE' })
    if (answer.cut) ledger.wasCut('delete API key', answer.status === 404)
    if (answer.status !== 204 && !(answer.cut && answer.status === 404))
      return ledger.odd('delete API key', answer)
    ledger.acknowledge('delete API key', auditName('api_key.deleted', key.id))
    const since = performance.now()
    // Other replicas know within the bound, because no poll was requested.
    const refused = async (replica: number) =>
      (await present(key.text, replica)) === 401 ||
      (performance.now() - since > KNOWN_WITHIN ? false : undefined)
    ledger.facts.push({ what: `the deletion of API key ${key.id}`, holds: refused })
  }

  const present = async (key: string, replica: number) =>
    (await insist('/introspect', { bearer: key, form: { token: 'none' }, replica })).status

  return { signUp, asItself, createKey, deleteKey }
}

/** Signups are limited by address. */
const address = () => ({
  'X-Forwarded-For': `10.${[0, 0, 0].map(() => Math.floor(Math.random() * 256)).join('.')}`,
})
