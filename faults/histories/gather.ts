import type { Stage } from '../stage.ts'
import type { Board, Client } from './client.ts'
import type { Customer } from './holdings.ts'
import type { Names } from './names.ts'
import type { Send } from './noting.ts'

/** Each customer has one client that manages its account; all other clients are users. */
export const CUSTOMERS = 6

/** Creates `count` clients, the first of which manage the customers. */
export async function gather(stage: Stage, names: Names, send: Send, count: number): Promise<Client[]> {
  const customers: Customer[] = []
  for (let n = 0; n < CUSTOMERS; n++) customers.push(await signUp(stage, names, n))
  const board: Board = { recent: [], ended: [] }
  return Array.from({ length: count }, (_, n) => ({
    name: n < CUSTOMERS ? `keeper${n + 1}` : `user${n + 1 - CUSTOMERS}`,
    customer: customers[n % CUSTOMERS]!,
    sessions: [],
    board,
    replicas: stage.replicas.length,
    send,
    over: () => false,
  }))
}

async function signUp({ replicas }: Stage, names: Names, n: number): Promise<Customer> {
  const [email, password] = [`customer${n}@example.com`, 'a long password']
  const response = await fetch(`${replicas[n % replicas.length]!.process.url}/api/auth/signup`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password }),
  })
  const { customer, api_key: apiKey } = (await response.json()) as {
    customer: { id: string }
    api_key: string
  }
  return { name: names.of('c', customer.id), email, password, apiKey }
}
