import { z } from 'zod'
import { RIGHTS, type Right } from '../clients/rights.ts'
import type { SealingKey } from '../crypto/envelope.ts'
import { listOf } from './values.ts'

const MASTER_KEY = /^[A-Za-z0-9._-]{1,32}:[A-Za-z0-9+/_-]{43}=?$/
const SERVICE = /^[a-z][a-z0-9-]{0,39}:[a-z]+(?:\+[a-z]+)*:[A-Za-z0-9_-]{32,}$/
// RFC 6750 2.1, b64token: a Bearer header can't carry any other character.
const TOKEN = '(?=.{32,}$)[A-Za-z0-9._~+/-]+=*'
const ADMIN_TOKEN = new RegExp(`^${TOKEN}$`)
const OPERATOR = new RegExp(`^[a-z][a-z0-9_-]{0,31}:(?:read:)?${TOKEN}$`)
const TOKEN_IN_WORDS = 'at least 32 of the characters A-Z a-z 0-9 - . _ ~ + /, with = only at the end'

const WEAK =
  'is too regular for a secret (few different bytes, a sequence or a repeated pattern); generate one, for example '

/**
 * False for secrets that people make up and no generator produces: all zero, repeating a pattern, counting, few different bytes.
 */
function isStrong(secret: Uint8Array): boolean {
  // Differences wrap around at 256, as bytes do.
  const steps = secret.subarray(1).map((byte, i) => byte - secret[i]!)
  return new Set(secret).size >= 8 && new Set(steps).size >= 8 && !repeats(secret)
}

function repeats(secret: Uint8Array): boolean {
  for (let period = 1; period <= secret.length / 2; period++) {
    if (secret.every((byte, i) => i < period || byte === secret[i - period])) return true
  }
  return false
}

/** `id:secret`; no id may hold a colon. */
function pair(text: string): { id: string; secret: string } {
  const colon = text.indexOf(':')
  return { id: text.slice(0, colon), secret: text.slice(colon + 1) }
}

function idsDiffer(entries: { id: string }[]): boolean {
  return new Set(entries.map(entry => entry.id)).size === entries.length
}

function toSealingKey(text: string): SealingKey {
  const { id, secret } = pair(text)
  return { id, bytes: Buffer.from(secret, 'base64') }
}

// 43 base64 characters have two bits more than 32 bytes. Only the spelling in which these bits are zero, in one alphabet, is
// accepted.
function isMasterKey(text: string): boolean {
  if (!MASTER_KEY.test(text)) return false
  const bytes = Buffer.from(toSealingKey(text).bytes)
  const bare = pair(text).secret.replace('=', '')
  return bare === bytes.toString('base64url') || `${bare}=` === bytes.toString('base64')
}

const masterKey = z
  .string()
  .refine(
    isMasterKey,
    'must be an id (1 to 32 of A-Z a-z 0-9 . _ -), a colon and 32 bytes in base64, for example ' +
      'm1: followed by the output of `openssl rand -base64 32`',
  )
  .transform(toSealingKey)
  .refine(key => isStrong(key.bytes), `${WEAK}m1: followed by the output of \`openssl rand -base64 32\``)

export const masterKeys = listOf(masterKey).refine(
  idsDiffer,
  'has two keys with the same id; give each its own, for example m2:NEW,m1:OLD',
)

export const adminToken = z
  .string()
  .regex(ADMIN_TOKEN, `must be ${TOKEN_IN_WORDS}, for example the output of \`openssl rand -base64 32\``)
  .pipe(
    z
      .string()
      .refine(token => isStrong(Buffer.from(token)), `${WEAK}the output of \`openssl rand -base64 32\``),
  )

function toService(text: string) {
  const { id: name, secret: rest } = pair(text)
  const { id: rights, secret } = pair(rest)
  return { id: name, may: [...new Set(rights.split('+'))] as Right[], secret }
}

const service = z
  .string()
  .regex(
    SERVICE,
    'must be a name (a letter, then up to 39 of a-z 0-9 -), a colon, its rights joined by +, a colon and a secret ' +
      'of at least 32 of A-Z a-z 0-9 _ -, for example gateway:introspect: followed by the output of `openssl rand -hex 32`',
  )
  .transform(toService)
  .refine(
    ({ may }) => may.every(right => RIGHTS.includes(right)),
    `has a right that does not exist; the rights are ${RIGHTS.join(', ')}, for example gateway:introspect+revoke:SECRET`,
  )
  .refine(
    ({ secret }) => isStrong(Buffer.from(secret)),
    `${WEAK}gateway:introspect: followed by the output of \`openssl rand -hex 32\``,
  )

export const services = listOf(service).refine(
  idsDiffer,
  'has two entries with the same name; give each its own, for example gateway:introspect:SECRET,shop:issue+refresh:SECRET',
)

function toOperator(text: string) {
  const { id: name, secret: rest } = pair(text)
  const readOnly = rest.startsWith('read:')
  return { id: name, secret: readOnly ? rest.slice('read:'.length) : rest, readOnly }
}

const operator = z
  .string()
  .regex(
    OPERATOR,
    'must be a name (a letter, then up to 31 of a-z 0-9 _ -), a colon, read: if the operator may only read, and a token of ' +
      `${TOKEN_IN_WORDS}, for example alice: followed by the output of \`openssl rand -hex 32\``,
  )
  .transform(toOperator)
  .refine(
    ({ id }) => id !== 'admin',
    'admin is the name of the operator with ADMIN_TOKEN; choose another, for example alice',
  )
  .refine(
    ({ secret }) => isStrong(Buffer.from(secret)),
    `${WEAK}alice: followed by the output of \`openssl rand -hex 32\``,
  )

export const operators = listOf(operator).refine(
  idsDiffer,
  'has two entries with the same name; give each its own, for example alice:TOKEN,dashboard:read:TOKEN',
)
