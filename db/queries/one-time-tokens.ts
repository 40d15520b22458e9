import { bare, insertInto, setExcluded } from '../columns.ts'
import { alias, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { oneTimeTokens, type TOKEN_PURPOSES } from '../schema/one-time-tokens.ts'
import { type AuditContext, auditInsert, typeBy } from './audit.ts'

/**
 * One-time tokens. Every statement locks the customer before the token, so that a token is created, consumed or withdrawn by
 * one statement at a time.
 */

export type Purpose = (typeof TOKEN_PURPOSES)[number]

const c = alias(customers, 'c')
const o = alias(oneTimeTokens, 'o')

interface NewOneTimeToken extends AuditContext {
  customerId: string
  purpose: Purpose
  digest: Uint8Array
  /** Undefined: the customer's present address. */
  email: string | undefined
  /** Seconds. */
  expiresIn: number
}

/**
 * Creates a token, in place of the customer's open token for this purpose. Returns the address to send it to, which is the
 * customer's address at this moment. No row: no such customer.
 */
export const insertOneTimeToken = prepared('insertOneTimeToken')<
  NewOneTimeToken,
  { email: string; expiresAt: Date }
>(sql`
  with holder as materialized (
    select ${c.id} as customer_id, ${c.email} from ${customers} as ${c}
    where ${c.id} = ${param('customerId')} for share
  ),
  made as (
    ${insertInto(oneTimeTokens, 'customerId', 'purpose', 'digest', 'email', 'expiresAt')}
    select customer_id, ${param('purpose')}, ${param('digest')}, coalesce(${param('email')}::text, email),
      ${now} + make_interval(secs => ${param('expiresIn')}::int)
    from holder
    on conflict (${bare(o.customerId)}, ${bare(o.purpose)})
    do update set ${setExcluded(oneTimeTokens, 'digest', 'email', 'expiresAt')}
    returning customer_id, purpose, email, expires_at, ${now} as t
  ),
  audited as (${auditInsert(
    typeBy(sql`purpose`, {
      password_reset: 'customer.password_reset_requested',
      email_verification: 'customer.email_verification_requested',
      email_change: 'customer.email_change_requested',
    }),
    'made',
    {
      subject: sql`customer_id`,
      detail: sql`json_build_object('expires_in', ${param('expiresIn')}::int)::text`,
    },
  )})
  select email, expires_at as "expiresAt" from made`)

const isFor = (purposes: Purpose[]) =>
  sql`${o.purpose} in (${sql.raw(purposes.map(purpose => `'${purpose}'`).join(', '))})`

/** A token is void once the customer has another address than the one that the token was made for. */
const isOpen = (purposes: Purpose[], email = sql`${c.email}`) => sql`
  ${isFor(purposes)} and ${o.digest} = ${param('digest')} and ${o.expiresAt} > ${now}
  and (${o.purpose} = 'email_change' or ${o.email} = ${email})`

export interface PresentedToken {
  customerId: string
  digest: Uint8Array
}

/** Whether a token can reset the password, before that password is hashed. No row: it can't. */
export const findPasswordReset = prepared('findPasswordReset')<PresentedToken, { open: true }>(sql`
  select true as open from ${customers} as ${c} join ${oneTimeTokens} as ${o} on ${o.customerId} = ${c.id}
  where ${c.id} = ${param('customerId')} and ${isOpen(['password_reset'])}`)

/**
 * Consumes the presented token.
 *
 * 1. `holder` locks the customer. If two statements present one token, the second finds it gone.
 * 2. `consumed` deletes the token, and has its purpose, its address and the time.
 */
export const consumedParts = (...purposes: Purpose[]) => sql`
  holder as materialized (
    select ${c.id} as customer_id, ${c.email} from ${customers} as ${c}
    where ${c.id} = ${param('customerId')} for no key update
  ),
  consumed as (
    delete from ${oneTimeTokens} as ${o} using holder
    where ${o.customerId} = holder.customer_id and ${isOpen(purposes, sql`holder.email`)}
    returning ${o.customerId}, ${o.purpose}, ${o.email}, ${now} as t
  )`

/**
 * Consumes a token for an address, which becomes the customer's address and verified. Fails by the constraint customers_email
 * if another customer has it, and then the token stays. No row: the token is not open.
 */
export const verifyEmail = prepared('verifyEmail')<AuditContext & PresentedToken, { verified: true }>(sql`
  with ${consumedParts('email_verification', 'email_change')},
  changed as (
    update ${customers} as ${c} set ${bare(c.email)} = consumed.email, ${bare(c.emailVerifiedAt)} = consumed.t,
      ${bare(c.revision)} = ${c.revision} + 1
    from consumed where ${c.id} = consumed.customer_id
    returning ${c.id} as customer_id, consumed.purpose, consumed.t
  ),
  audited as (${auditInsert(
    typeBy(sql`purpose`, {
      email_verification: 'customer.email_verified',
      email_change: 'customer.email_changed',
    }),
    'changed',
    { subject: sql`customer_id` },
  )})
  select true as verified from changed`)

/**
 * The part `withdrawn`: deletes open tokens of the customer in the part `from`. It skips a token that another statement has
 * locked: that statement is consuming or deleting it, and waiting for it while holding sessions could deadlock.
 */
export const withdrawnPart = (from: string, purposes: Purpose[], condition = sql`true`) => sql`
  withdrawn as (
    delete from ${oneTimeTokens} where (${bare(o.customerId)}, ${bare(o.purpose)}) in (
      select ${o.customerId}, ${o.purpose} from ${oneTimeTokens} as ${o}, ${sql.raw(from)} as of
      where ${o.customerId} = of.customer_id and ${isFor(purposes)} and ${condition}
      for update of ${o} skip locked
    )
    returning 1
  )`

/** Records that a customer requested another address, with its session and its password. */
export const insertEmailChangeRequest = prepared('insertEmailChangeRequest')<
  AuditContext & { customerId: string; sessionId: string },
  never
>(sql`
  with asked as (select ${now} as t, ${param('customerId')}::text as customer_id)
  ${auditInsert('customer.email_change_requested', 'asked', {
    subject: sql`customer_id`,
    session: sql`${param('sessionId')}::text`,
  })}`)
