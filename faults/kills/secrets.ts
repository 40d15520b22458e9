import { any, chance, versionOf } from '../tokens.ts'
import type { accountActs } from './accounts.ts'
import type { Calls, Insisted } from './calls.ts'
import { isDead } from './ends.ts'
import type { Customer } from './held.ts'
import { auditName, type Kind, type Ledger } from './ledger.ts'

interface Version {
  use: string
  version: number
}

/** Customers that rotate their secrets, some of them with `now`. */
export function secretActs(calls: Calls, ledger: Ledger, { asItself }: ReturnType<typeof accountActs>) {
  async function versionsOf(customer: Customer, replica?: number): Promise<string[]> {
    const at = replica === undefined ? {} : { replica }
    const { status, json } = await asItself(customer, '/api/secrets', { method: 'GET', ...at })
    return status === 200 ? json.secrets.map(nameOf) : []
  }

  async function rotate(customer: Customer): Promise<void> {
    const now = customer.hasEmergencies && chance(0.5)
    const older = now ? [...customer.issued] : []
    const use = now ? 'access' : any(['access', 'refresh', 'both'])
    const before = await versionsOf(customer)
    const answer = await asItself(customer, '/api/secrets/rotate', { json: { use, now } })
    const kind = now ? 'rotate now' : 'rotate'
    if (answer.cut)
      ledger.wasCut(kind, (await versionsOf(customer)).length - before.length > made(answer).length)
    // Limits on older versions (409) and on rotations in ten minutes (429).
    if (answer.status === 409 || answer.status === 429) return
    if (answer.status !== 200) return ledger.odd(kind, answer)
    note(kind, customer, made(answer), older)
  }

  function note(kind: Kind, customer: Customer, versions: Version[], older: string[]) {
    const names = versions.map(nameOf)
    ledger.acknowledge(kind, ...names.map(name => auditName('secret.rotated', `${customer.id} ${name}`)))
    const areListed = async (replica: number) => {
      const listed = await versionsOf(customer, replica)
      return names.every(name => listed.includes(name))
    }
    ledger.facts.push({ what: `${kind}: ${customer.id} ${names}`, holds: areListed })
    for (const access of older.filter(token => versionOf(token) < versions[0]!.version))
      ledger.facts.push({ what: `${kind}: ${customer.id}`, holds: replica => isDead(calls, access, replica) })
  }

  return { rotate }
}

const nameOf = ({ use, version }: Version) => `${use} ${version}`
const made = ({ status, json }: Insisted): Version[] => (status === 200 ? json.versions : [])
