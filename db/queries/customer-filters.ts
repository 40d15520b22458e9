import { alias, and, desc, eq, or, type SQL, sql } from '../drizzle.ts'
import { type Params, query } from '../query.ts'
import { apiKeys } from '../schema/api-keys.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { signingKeys } from '../schema/signing-keys.ts'
import { LISTED } from './customers.ts'
import { isAfter, type Page } from './sessions.ts'

/** The criteria that listed customers meet. Undefined members are no criterion. */
export interface CustomerFilter {
  /** Seconds. The customer has a key that signs or still verifies and was created longer ago. */
  keysOlderThan: number | undefined
  /** The password hash is not argon2id, or its memory (KiB) or its number of passes is below these. */
  minMemoryKib: number | undefined
  minPasses: number | undefined
  /** Seconds. In this time no token was issued or refreshed, and no API key was used. */
  unusedFor: number | undefined
}

/** The most customers that one page reads: the filter may match none of them. */
const MAX_LOOKED_AT = 2_000

const k = alias(signingKeys, 'k')
const a = alias(apiKeys, 'a')

/** The time this many seconds ago. It is a subquery so that the volatile `assay.now()` runs once for the statement. */
const ago = (seconds: SQL) => sql`(select ${now} - make_interval(secs => ${seconds}))`

/** A number in the parameters of a PHC string, such as `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`. */
const phcNumber = (hash: SQL, name: 'm' | 't') =>
  sql`substring(${hash} from ${sql.raw(`'[$,]${name}=([0-9]{1,9})'`)})::int`

/**
 * The matching customers among the next MAX_LOOKED_AT, newest first, and the last of those, matching or not, where the next page
 * continues. The index on `created_at` gives them in order, so a page costs the same however many customers there are.
 *
 * `issued_until` shows when a token was last issued or refreshed, which includes logins: no token expires after it. It is ahead
 * by the longest lifetime of a token and 15 minutes, so a customer may be found that much too late, and never too early.
 */
export const listMatchingCustomers = query(
  'listMatchingCustomers',
  (db, asked: Params<CustomerFilter & Page>) => {
    const next = db
      .select({
        ...LISTED,
        passwordHash: customers.passwordHash,
        issuedUntil: customers.issuedUntil,
        place: sql<number>`row_number() over (order by ${customers.createdAt} desc, ${customers.id} desc)`.as(
          'place',
        ),
      })
      .from(customers)
      .where(isAfter(customers.createdAt, customers.id, asked))
      .orderBy(desc(customers.createdAt), desc(customers.id))
      .limit(MAX_LOOKED_AT)
      .as('next')
    const hash = sql`${next.passwordHash}`
    const hasOldKey = sql`(${asked.keysOlderThan}::int is null or exists (select from ${signingKeys} as ${k}
      where ${k.customerId} = ${next.id} and ${k.state} <> 'retired'
        and ${k.createdAt} < ${ago(sql`${asked.keysOlderThan}::int`)}))`
    const hasWeakHash = sql`(${asked.minMemoryKib}::int is null or not coalesce(${hash} like '$argon2id$%'
      and ${phcNumber(hash, 'm')} >= ${asked.minMemoryKib}::int
      and ${phcNumber(hash, 't')} >= ${asked.minPasses}::int, false))`
    const since = ago(sql`${asked.unusedFor}::int`)
    const isUnused = sql`(${asked.unusedFor}::int is null or
      greatest(${next.createdAt}, ${next.issuedUntil}) < ${since} and not exists (select from ${apiKeys} as ${a}
        where ${a.customerId} = ${next.id} and ${a.lastUsedAt} >= ${since}))`
    const listed = sql<boolean>`${and(hasOldKey, hasWeakHash, isUnused)}`
    const lastRead = sql<boolean>`${eq(next.place, MAX_LOOKED_AT)}`
    const { passwordHash, issuedUntil, place, ...columns } = next._.selectedFields
    return db
      .select({ ...columns, listed, lastRead })
      .from(next)
      .where(or(listed, lastRead))
      .orderBy(desc(next.createdAt), desc(next.id))
      .limit(asked.limit)
  },
)
