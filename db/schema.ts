import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
  customType,
  index,
  integer,
  pgSchema,
  primaryKey,
  text,
  timestamp,
  uniqueIndex,
} from 'drizzle-orm/pg-core'

/** Everything lives in one schema, so that Assay can share a database with an application. */
export const assay = pgSchema('assay')

const bytea = customType<{ data: Uint8Array }>({ dataType: () => 'bytea' })
const instant = (name: string) => timestamp(name, { withTimezone: true })

/** All time in SQL comes from this one function of ours (a migration makes it), so that a test can move it. */
const now = sql`assay.now()`

/**
 * The installation's random id and its installation key, sealed by a master key. Opening it proves the master key; it
 * stays when the master changes. One row: the primary key is a boolean that must be true.
 */
export const installation = assay.table(
  'installation',
  {
    only: boolean('only').primaryKey().default(true),
    id: text('id').notNull(),
    sealedKey: bytea('sealed_key').notNull(),
    /** Of everyone: whatever began under a lower one is dead, whosever it is. From the sequence of all epochs. */
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    createdAt: instant('created_at').notNull().default(now),
  },
  table => [check('installation_only', sql`${table.only}`)],
)

/** The check value of each master key ever used here: a ring that doesn't match is refused before anything is opened. */
export const masterKeys = assay.table('master_keys', {
  id: text('id').primaryKey(),
  checkValue: text('check_value').notNull(),
  createdAt: instant('created_at').notNull().default(now),
})

/**
 * The counter that every narrowing act moves as its last step. Its row lock makes the order of commits the order of
 * numbers, which a sequence would not: whoever sees seq = n sees every change up to n.
 */
export const bus = assay.table(
  'bus',
  {
    only: boolean('only').primaryKey().default(true),
    seq: bigint('seq', { mode: 'number' }).notNull().default(0),
  },
  table => [check('bus_only', sql`${table.only}`)],
)

/** What narrowed what is accepted, by the bus's number. A row leaves once no live token can be concerned. */
export const revocations = assay.table(
  'revocations',
  {
    seq: bigint('seq', { mode: 'number' }).primaryKey(),
    kind: text('kind', { enum: ['token', 'session', 'subject', 'customer', 'everyone'] }).notNull(),
    /** Empty for everyone. */
    customerId: text('customer_id').notNull(),
    /** The jti, sid or subject; empty for a customer: its record is then read anew, whatever changed in it. */
    key: text('key').notNull().default(''),
    /** The new epoch of the subject, or of everyone: tokens that carry a lower one are refused. */
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    deadAfter: instant('dead_after').notNull(),
  },
  table => [
    index('revocations_dead_after').on(table.deadAfter),
    check('revocations_kind', sql`${table.kind} in ('token', 'session', 'subject', 'customer', 'everyone')`),
  ],
)

/** Who polls the bus, what it has applied and for how many milliseconds it may go on without a poll. */
export const replicas = assay.table('replicas', {
  id: text('id').primaryKey(),
  applied: bigint('applied', { mode: 'number' }).notNull(),
  maxStaleness: integer('max_staleness').notNull(),
  seenAt: instant('seen_at').notNull(),
  /** Of the program. */
  version: text('version').notNull().default(''),
})

/** A tenant; in OAuth's terms, a client. */
export const customers = assay.table(
  'customers',
  {
    id: text('id').primaryKey(),
    /** Trimmed and in lower case. */
    email: text('email').notNull(),
    name: text('name'),
    passwordHash: text('password_hash').notNull(),
    state: text('state', { enum: ['active', 'disabled'] })
      .notNull()
      .default('active'),
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    /** How many API keys it has: a count of their rows would be as old as the statement that counts. */
    apiKeys: integer('api_keys').notNull().default(0),
    /** How often its signing keys were rotated: who rotates must have seen the latest ones. */
    rotations: integer('rotations').notNull().default(0),
    /** Counts what an operator changed of it, so that two who change it at once don't undo each other's. */
    revision: integer('revision').notNull().default(1),
    // Its policy (policy.ts); null: as the server's settings have it. Times in seconds.
    scopes: text('scopes'),
    accessTokenTtl: integer('access_token_ttl'),
    maxAccessTokenTtl: integer('max_access_token_ttl'),
    refreshTokenTtl: integer('refresh_token_ttl'),
    sessionMaxTtl: integer('session_max_ttl'),
    refreshPolicy: text('refresh_policy', { enum: ['until_confirmed', 'grace_only', 'strict'] }),
    keyMaxAge: integer('key_max_age'),
    /** The data key that seals this customer's secrets, itself sealed by a master key. */
    sealedDataKey: bytea('sealed_data_key').notNull(),
    createdAt: instant('created_at').notNull().default(now),
  },
  table => [
    uniqueIndex('customers_email').on(table.email),
    // What operators search by begins with what they typed, which the index above can't find in every collation.
    index('customers_email_prefix').on(table.email.op('text_pattern_ops')),
    index('customers_name_prefix').on(sql`lower(${table.name}) text_pattern_ops`, table.id),
    index('customers_listed').on(table.createdAt, table.id),
    index('customers_key_max_age').on(table.id).where(sql`${table.keyMaxAge} is not null`),
    check('customers_id', sql`${table.id} ~ '^[a-z2-7]{16}$'`),
    check('customers_state', sql`${table.state} in ('active', 'disabled')`),
    check(
      'customers_refresh_policy',
      sql`${table.refreshPolicy} in ('until_confirmed', 'grace_only', 'strict')`,
    ),
  ],
)

/** One signing key per customer and use signs; the partial unique index says so, so that no code has to. */
export const signingKeys = assay.table(
  'signing_keys',
  {
    customerId: text('customer_id')
      .notNull()
      .references(() => customers.id, { onDelete: 'cascade' }),
    use: text('use', { enum: ['access', 'refresh'] }).notNull(),
    version: integer('version').notNull(),
    state: text('state', { enum: ['current', 'previous', 'retired'] }).notNull(),
    alg: text('alg', { enum: ['HS256', 'HS384', 'HS512'] }).notNull(),
    sealedSecret: bytea('sealed_secret').notNull(),
    createdAt: instant('created_at').notNull().default(now),
    /** When it stopped being the current one. */
    replacedAt: instant('replaced_at'),
    retiredAt: instant('retired_at'),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.use, table.version] }),
    uniqueIndex('signing_keys_current')
      .on(table.customerId, table.use)
      .where(sql`${table.state} = 'current'`),
    check('signing_keys_use', sql`${table.use} in ('access', 'refresh')`),
    check('signing_keys_state', sql`${table.state} in ('current', 'previous', 'retired')`),
    check('signing_keys_alg', sql`${table.alg} in ('HS256', 'HS384', 'HS512')`),
    check('signing_keys_version', sql`${table.version} > 0`),
    // What maintenance looks for: those that wait to be retired, and the oldest that still sign.
    index('signing_keys_previous').on(table.replacedAt).where(sql`${table.state} = 'previous'`),
    index('signing_keys_age').on(table.createdAt).where(sql`${table.state} = 'current'`),
  ],
)

/** Only the SHA-256 of the key is kept: 256 random bits need no slow hash. */
export const apiKeys = assay.table(
  'api_keys',
  {
    id: text('id').primaryKey(),
    customerId: text('customer_id')
      .notNull()
      .references(() => customers.id, { onDelete: 'cascade' }),
    name: text('name'),
    /** RFC 6749 3.3: what a token issued with it may carry; '*' is any, and none unasked. */
    scope: text('scope').notNull(),
    digest: bytea('digest').notNull(),
    createdAt: instant('created_at').notNull().default(now),
    expiresAt: instant('expires_at'),
    /** Written at most once a minute. */
    lastUsedAt: instant('last_used_at'),
  },
  table => [index('api_keys_customer').on(table.customerId)],
)

/** A gateway or backend that asks about tokens. */
export const resourceServers = assay.table('resource_servers', {
  id: text('id').primaryKey(),
  name: text('name'),
  digest: bytea('digest').notNull(),
  /** The credential before the last rotation, and until when it may still be used. */
  previousDigest: bytea('previous_digest'),
  previousUntil: instant('previous_until'),
  /** JSON of customers' ids, and of scopes, that it is limited to; null: all. */
  customers: text('customers'),
  scopes: text('scopes'),
  createdAt: instant('created_at').notNull().default(now),
})

/**
 * One row per session for its whole life, updated in place (a migration sets fillfactor 70). A refresh token is derived
 * wholly from it, so that the same string can be made again and none is stored.
 *
 * No foreign key to customers: its check would lock the customer's row at every start of a session. A session without a
 * customer can't be refreshed, because the refresh joins the two.
 */
export const sessions = assay.table(
  'sessions',
  {
    customerId: text('customer_id').notNull(),
    id: text('id').notNull(),
    subject: text('subject').notNull(),
    scope: text('scope').notNull(),
    /** JSON of the aud claim: a string or an array of strings. */
    audience: text('audience').notNull(),
    /** JSON of the caller's own claims, carried under ext. */
    ext: text('ext'),
    /** Seconds that each of its access tokens lives. */
    accessTtl: integer('access_ttl').notNull(),
    customerEpoch: bigint('customer_epoch', { mode: 'number' }).notNull(),
    subjectEpoch: bigint('subject_epoch', { mode: 'number' }).notNull(),
    /** The generation of the refresh token that is next to be used; the first is 1. */
    gen: integer('gen').notNull().default(1),
    issuedAt: instant('issued_at').notNull(),
    /** When the current generation was made, and the one before it. */
    rotatedAt: instant('rotated_at').notNull(),
    prevRotatedAt: instant('prev_rotated_at'),
    /** When the client was first seen with what the last rotation gave it. */
    confirmedAt: instant('confirmed_at'),
    keyVersion: integer('key_version').notNull(),
    prevKeyVersion: integer('prev_key_version'),
    /** The latest exp of an access token issued in it. */
    accessUntil: instant('access_until').notNull(),
    /** Idle end: of the current refresh token. */
    expiresAt: instant('expires_at').notNull(),
    /** The end in all, whatever is refreshed. */
    endsAt: instant('ends_at').notNull(),
    revokedAt: instant('revoked_at'),
    ip: text('ip'),
    userAgent: text('user_agent'),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.id] }),
    index('sessions_subject').on(table.customerId, table.subject, table.issuedAt),
    index('sessions_listed').on(table.customerId, table.issuedAt, table.id),
    // By its end in all, which never changes: an index on expires_at would cost every refresh its HOT update.
    index('sessions_ends_at').on(table.endsAt),
    check('sessions_gen', sql`${table.gen} > 0`),
    check('sessions_ends', sql`${table.expiresAt} <= ${table.endsAt}`),
  ],
)

/** Gives each new epoch, of subjects and customers alike. */
export const epochs = assay.sequence('epochs')

/** Tokens and sessions of a subject that began under a lower epoch are dead. No row is epoch 0. */
export const subjectEpochs = assay.table(
  'subject_epochs',
  {
    customerId: text('customer_id').notNull(),
    subject: text('subject').notNull(),
    /** From the one sequence, so that a removed row never starts again. */
    epoch: bigint('epoch', { mode: 'number' }).notNull(),
    changedAt: instant('changed_at').notNull().default(now),
  },
  table => [primaryKey({ columns: [table.customerId, table.subject] })],
)

/** Which session an Idempotency-Key started. Digests only: neither the key nor the body is kept. */
export const idempotencyKeys = assay.table(
  'idempotency_keys',
  {
    customerId: text('customer_id').notNull(),
    keyDigest: bytea('key_digest').notNull(),
    requestDigest: bytea('request_digest').notNull(),
    sessionId: text('session_id').notNull(),
    expiresAt: instant('expires_at').notNull(),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.keyDigest] }),
    index('idempotency_keys_expires_at').on(table.expiresAt),
  ],
)

/**
 * Every act, written in the act's own statement. Partitioned by month (a migration says so: drizzle can't), with a
 * default partition, because no insert may fail for want of one. No foreign key: an erased customer's rows stay.
 */
export const auditEvents = assay.table(
  'audit_events',
  {
    at: instant('at').notNull(),
    id: bigint('id', { mode: 'number' }).generatedAlwaysAsIdentity(),
    customerId: text('customer_id'),
    type: text('type').notNull(),
    actor: text('actor').notNull(),
    subject: text('subject'),
    sessionId: text('session_id'),
    tokenId: text('token_id'),
    ip: text('ip'),
    userAgent: text('user_agent'),
    /** JSON. */
    detail: text('detail'),
  },
  table => [
    primaryKey({ columns: [table.at, table.id] }),
    index('audit_events_customer').on(table.customerId, table.at, table.id),
    // For who looks at all customers. What happens all the time is found by its time: no issue and no refresh pays for these.
    index('audit_events_rare')
      .on(table.type, table.at, table.id)
      .where(sql`${table.type} not in ('token.issued', 'session.refreshed')`),
    index('audit_events_operator')
      .on(table.actor, table.at, table.id)
      .where(sql`${table.actor} like 'operator:%'`),
  ],
)
