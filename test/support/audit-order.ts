import { orderEvents } from '../../db/queries/audit-order.ts'
import { until } from './process.ts'
import { READER, type Replica, type World } from './world.ts'

export interface OrderedEvent {
  id: string
  type: string
  actor: string
  customer_id?: string
  subject?: string
  cursor: string
}

/** Runs the sequencer until no event is waiting. Returns how many events got a position. */
export async function orderAll({ db }: Pick<World, 'db'>): Promise<number> {
  for (let total = 0; ; ) {
    const [run] = await orderEvents(db, {})
    total += run!.ordered
    if (!run!.more) return total
  }
}

/**
 * Runs the sequencer until it has given up the ids of all failed acts. Open transactions in other databases of the same
 * server delay this.
 */
export async function orderUntilNothingIsMissing(world: Pick<World, 'db'>): Promise<void> {
  await until(
    'no id is missing',
    async () => {
      await orderAll(world)
      const [state] = await world.db.query<{ missing: string }>(
        'select missing::text from assay.audit_sequencer',
      )
      return state!.missing === '{}'
    },
    50_000,
  )
}

/** A reader that follows the order: `read` returns the events since the previous call, page by page. */
export function follow(assay: Replica, { limit = 100, after = '0', filter = '' } = {}) {
  const reader = { after, read }
  async function read(): Promise<OrderedEvent[]> {
    const events: OrderedEvent[] = []
    for (;;) {
      const { status, json } = await assay.get(
        `/admin/audit?after=${reader.after}&limit=${limit}${filter}`,
        READER,
      )
      if (status !== 200) throw new Error(`the audit answered ${status}`)
      events.push(...json.events)
      reader.after = json.next
      if (!json.more) return events
    }
  }
  return reader
}

/** Inserts events without a customer, each with a different actor. */
export const insertEvents = (from: number, to: number) =>
  `insert into assay.audit_events (at, type, actor)
  select assay.now(), 'customer.login_failed', 'planted:' || n from generate_series(${from}, ${to}) as n`
