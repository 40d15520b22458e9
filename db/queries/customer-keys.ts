import type { Connection } from '../client.ts'
import { statement } from '../statement.ts'
import { POSITION, type Position } from './change-feed.ts'

export interface Installation {
  id: string
  sealedKey: Uint8Array
}

export const findInstallation = statement('findInstallation')<Record<never, never>, Installation>(
  'select id, sealed_key as "sealedKey" from assay.installation',
)

/**
 * With the check value of the master key that seals it: there is no installation without one. The first one wins; whoever
 * loses the race reads the winner's.
 */
export const insertInstallation = statement('insertInstallation')<
  { id: string; sealedKey: Uint8Array; masterKeyId: string; checkValue: string },
  never
>(`
  with made as (
    insert into assay.installation (id, sealed_key) values (:id, :sealedKey) on conflict do nothing returning 1
  )
  insert into assay.master_keys (id, check_value) select :masterKeyId::text, :checkValue::text from made
  on conflict do nothing`)

export const findMasterKeys = statement('findMasterKeys')<
  Record<never, never>,
  { id: string; checkValue: string }
>('select id, check_value as "checkValue" from assay.master_keys order by id')

export const insertMasterKey = statement('insertMasterKey')<{ id: string; checkValue: string }, never>(
  'insert into assay.master_keys (id, check_value) values (:id, :checkValue) on conflict do nothing',
)

/**
 * The ids of the master keys that rows need, from the sealed blobs' own headers (version, alg, id's length, id). Only ids
 * that this installation has had: a damaged header must keep nobody else from starting.
 */
export const findNeededMasterKeys = (db: Pick<Connection, 'query'>) =>
  db.query<{ id: string }>(`
    select distinct m.id
    from (select sealed_data_key as sealed from assay.customers union all select sealed_key from assay.installation) s
    join assay.master_keys m
      on m.id = case when length(sealed) > 3 then encode(substring(sealed from 4 for get_byte(sealed, 2)), 'escape') end
    order by m.id`)

/** Of some customers, whichever they are. */
export const findSomeDataKeys = statement('findSomeDataKeys')<
  { count: number },
  { customerId: string; sealedDataKey: Uint8Array }
>('select id as "customerId", sealed_data_key as "sealedDataKey" from assay.customers limit :count::int')

/** A customer's record, and the position that it was read at. `state` null: no such customer. */
export interface RecordRow extends Position {
  /** Milliseconds since 1970, by the database's clock. */
  readAt: number
  state: 'active' | 'disabled' | null
  epoch: number | null
  sealedDataKey: Uint8Array | null
  /** [use, version, alg, state, sealed secret in base64] */
  keys:
    | [
        use: 'access' | 'refresh',
        version: number,
        alg: 'HS256' | 'HS384' | 'HS512',
        state: string,
        sealed: string,
      ][]
    | null
  /** [id, digest in base64, scope, exp as a NumericDate] */
  apiKeys: [id: string, digest: string, scope: string, expiresAt: number | null][] | null
}

const inBase64 = (column: string) => `translate(encode(${column}, 'base64'), e'\\n', '')`

/**
 * All that verifying customers' tokens and API keys takes (ids: a JSON array of theirs), in one statement and so from one
 * snapshot. A row for each, in order.
 */
export const findRecords = statement('findRecords')<{ ids: string }, RecordRow>(`
  with position as materialized (
    select ${POSITION}, (extract(epoch from assay.now()) * 1000)::float8 as "readAt"
  )
  select position.*, c.state, c.epoch, c.sealed_data_key as "sealedDataKey",
    (select json_agg(json_build_array(k.use, k.version, k.alg, k.state, ${inBase64('k.sealed_secret')}))
      from assay.signing_keys k where k.customer_id = c.id and k.state <> 'retired') as keys,
    (select json_agg(json_build_array(a.id, ${inBase64('a.digest')}, a.scope, extract(epoch from a.expires_at)))
      from assay.api_keys a where a.customer_id = c.id) as "apiKeys"
  from position
  cross join jsonb_array_elements_text(:ids::text::jsonb) with ordinality as asked (id, place)
  left join lateral (
    -- By its id for each, whatever the planner guesses of how many there are.
    select * from assay.customers where customers.id = asked.id offset 0
  ) as c on true
  order by place`)
