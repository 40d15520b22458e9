import { insertInto, pick } from '../columns.ts'
import { type AnyPgColumn, alias, asc, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Params, query } from '../query.ts'
import { apiKeys } from '../schema/api-keys.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { installation } from '../schema/installation.ts'
import { masterKeys } from '../schema/master-keys.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { POSITION, type Position } from './position.ts'

export const findInstallation = query('findInstallation', db =>
  db.select(pick(installation, 'id', 'sealedKey')).from(installation),
)

/**
 * Inserts the installation with the check value of the master key that encrypts it. The first replica wins; the others read its
 * row.
 */
export const insertInstallation = prepared('insertInstallation')<
  { id: string; sealedKey: Uint8Array; masterKeyId: string; checkValue: string },
  never
>(sql`
  with inserted as (
    ${insertInto(installation, 'id', 'sealedKey')} values (${param('id')}, ${param('sealedKey')})
    on conflict do nothing returning 1
  )
  ${insertInto(masterKeys, 'id', 'checkValue')}
  select ${param('masterKeyId')}::text, ${param('checkValue')}::text from inserted
  on conflict do nothing`)

export const findMasterKeys = query('findMasterKeys', db =>
  db
    .select(pick(masterKeys, 'id', 'checkValue'))
    .from(masterKeys)
    .orderBy(asc(masterKeys.id)),
)

export const insertMasterKey = query(
  'insertMasterKey',
  (db, { id, checkValue }: Params<{ id: string; checkValue: string }>) =>
    db.insert(masterKeys).values({ id, checkValue }).onConflictDoNothing(),
)

/**
 * The ids of the master keys that rows need, from the headers of the encrypted values (version, alg, id's length, id). It returns
 * only ids that this installation has had, because a damaged header must not keep the server from starting.
 */
export const findNeededMasterKeys = prepared('findNeededMasterKeys')<
  Record<never, never>,
  { id: string }
>(sql`
  select distinct ${masterKeys.id}
  from (select ${customers.sealedDataKey} as sealed from ${customers}
    union all select ${installation.sealedKey} from ${installation}) as s
  join ${masterKeys} on ${masterKeys.id} =
    case when length(sealed) > 3 then encode(substring(sealed from 4 for get_byte(sealed, 2)), 'escape') end
  order by ${masterKeys.id}`)

/** Finds the data keys of some customers, whichever they are. */
export const findSomeDataKeys = query('findSomeDataKeys', (db, { count }: Params<{ count: number }>) =>
  db
    .select({ customerId: customers.id, sealedDataKey: customers.sealedDataKey })
    .from(customers)
    .limit(count),
)

type Customer = typeof customers.$inferSelect
type SigningKey = typeof signingKeys.$inferSelect

/** The encrypted secret is in base64. */
export type KeyRow = [
  use: SigningKey['use'],
  version: number,
  alg: SigningKey['alg'],
  state: string,
  sealed: string,
]
/** The digest is in base64, and the expiry a NumericDate. */
export type ApiKeyRow = [id: string, digest: string, scope: string, expiresAt: number | null]

/** A customer's record, and the position that it was read at. `state` null: no such customer. */
export interface RecordRow extends Position {
  /** Milliseconds since 1970, by the database's clock. */
  readAt: number
  state: Customer['state'] | null
  epoch: number | null
  tokensPerMinute: number | null
  sealedDataKey: Uint8Array | null
  keys: KeyRow[] | null
  apiKeys: ApiKeyRow[] | null
}

const inBase64 = (column: AnyPgColumn) => sql`translate(encode(${column}, 'base64'), e'\\n', '')`

const c = alias(customers, 'c')
const a = alias(signingKeys, 'a')
const r = alias(signingKeys, 'r')

/** `from` the customer `c`, with the signing keys that now sign its access tokens (`a`) and its refresh tokens (`r`). */
export const customerWithKeys = {
  c,
  a,
  r,
  from: sql`from ${customers} as ${c}
      join ${signingKeys} as ${a} on ${a.customerId} = ${c.id} and ${a.use} = 'access' and ${a.state} = 'current'
      join ${signingKeys} as ${r} on ${r.customerId} = ${c.id} and ${r.use} = 'refresh' and ${r.state} = 'current'`,
}

const k = alias(signingKeys, 'k')
const credentials = alias(apiKeys, 'credentials')

/**
 * Everything needed to verify customers' tokens and API keys (ids: a JSON array of customer ids), in one statement
 * and so from one snapshot. A row for each, in order.
 *
 * 1. `position` is the position and the time of the snapshot.
 * 2. `asked` are the ids in their order.
 * 3. `c` is the customer of each, looked up by its id, which `offset 0` enforces regardless of the planner's estimate
 *    of their number.
 */
export const findRecords = prepared('findRecords')<{ ids: string }, RecordRow>(sql`
  with position as materialized (
    select ${POSITION}, (extract(epoch from ${now}) * 1000)::float8 as "readAt"
  )
  select position.*, ${c.state}, ${c.epoch}, ${c.tokensPerMinute} as "tokensPerMinute", ${c.sealedDataKey} as "sealedDataKey",
    (select json_agg(json_build_array(${k.use}, ${k.version}, ${k.alg}, ${k.state}, ${inBase64(k.sealedSecret)}))
      from ${signingKeys} as ${k} where ${k.customerId} = ${c.id} and ${k.state} <> 'retired') as keys,
    (select json_agg(json_build_array(${credentials.id}, ${inBase64(credentials.digest)}, ${credentials.scope},
        extract(epoch from ${credentials.expiresAt})))
      from ${apiKeys} as ${credentials} where ${credentials.customerId} = ${c.id}) as "apiKeys"
  from position
  cross join jsonb_array_elements_text(${param('ids')}::text::jsonb) with ordinality as asked (id, place)
  left join lateral (
    select * from ${customers} where ${customers.id} = asked.id offset 0
  ) as ${c} on true
  order by place`)
