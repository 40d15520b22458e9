import postgres from 'postgres'
import { measure, obey } from './measure.ts'

/**
 * The upper limit for work that queries the database: postgres.js, with as many connections as Assay has, sends one statement
 * that Assay itself sent (statement.ts has captured it), and does nothing else. The statement reads one customer, and each call
 * reads the next one.
 */

const CONNECTIONS = 10
/** Number of calls before the measurement, so that statements are prepared and planned. */
const WARM_UP = 200
/** Idle connections are closed after this time, because Postgres has few and other contenders need them (s). */
const IDLE = 5

const { text, params, customer }: { text: string; params: (string | null)[]; customer: string } = JSON.parse(
  process.env.STATEMENT!,
)
const customers: string[] = JSON.parse(process.env.CUSTOMERS!)
/** Parameters are sent as the same text that Assay sent, whatever their types. */
const same = (text: string) => text
const sql = postgres(process.env.DATABASE_URL!, {
  max: CONNECTIONS,
  idle_timeout: IDLE,
  fetch_types: false,
  onnotice: () => {},
  types: {
    json: { to: 114, from: [114, 3802], serialize: same, parse: JSON.parse },
    others: { to: 25, from: [16, 17, 1082, 1114, 1184], serialize: same, parse: same },
  },
})

async function select(i: number) {
  const id = customers[i % customers.length]!
  const own = params.map(each => each?.replaceAll(customer, id) ?? null)
  const rows = await sql.unsafe(text, own, { prepare: true })
  if (rows.length !== 1) throw new Error('the select did not return one row')
  return { id, row: rows[0] }
}

for (let i = 0; i < WARM_UP; i++) {
  const { id, row } = await select(i)
  // The ids of its API keys begin with it.
  if (!JSON.stringify(row).includes(id)) throw new Error('the select did not find its customer')
}
await obey(async asked => {
  let next = 0
  return measure(asked, async () => void (await select(next++)))
})
