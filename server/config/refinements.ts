import { z } from 'zod'
import type { SettingName, Settings } from './schema.ts'

/**
 * Rules across settings. Each reports one setting, and is skipped while a setting it depends on is malformed.
 */

type Payload = z.core.ParsePayload

function isMalformed({ issues }: Payload, name: SettingName): boolean {
  return issues.some(issue => issue.path?.[0] === name)
}

function rule(needs: [SettingName, ...SettingName[]], holds: (s: Settings) => boolean, error: string) {
  const when = (payload: Payload) => !needs.some(name => isMalformed(payload, name))
  return z.refine<Settings>(holds, { path: [needs[0]], error, when })
}

// Rules may use a malformed DATABASE_URL, because only whether it is set matters.
const isEmbedded = (s: Settings) => s.DATABASE_URL === undefined
const MAKE =
  'is missing, and Assay generates none with DATABASE_URL; set the same value on every replica, for example '

export const rules = [
  rule(
    ['ACCESS_TOKEN_TTL', 'MAX_ACCESS_TOKEN_TTL'],
    s => s.ACCESS_TOKEN_TTL <= s.MAX_ACCESS_TOKEN_TTL,
    'is longer than MAX_ACCESS_TOKEN_TTL (15m if unset); shorten it or raise the other, for example ' +
      'ACCESS_TOKEN_TTL=5m',
  ),
  rule(
    ['ACCESS_TOKEN_TTL', 'REFRESH_TOKEN_TTL'],
    s => s.ACCESS_TOKEN_TTL <= s.REFRESH_TOKEN_TTL,
    'is longer than REFRESH_TOKEN_TTL (30d if unset); shorten it or raise the other, for example ' +
      'ACCESS_TOKEN_TTL=5m',
  ),
  rule(
    ['REFRESH_TOKEN_TTL', 'SESSION_MAX_TTL'],
    s => s.REFRESH_TOKEN_TTL <= s.SESSION_MAX_TTL,
    'is longer than SESSION_MAX_TTL (90d if unset); shorten it or raise the other, for example ' +
      'REFRESH_TOKEN_TTL=30d',
  ),
  rule(
    ['MASTER_KEYS'],
    s => isEmbedded(s) || s.MASTER_KEYS !== undefined,
    `${MAKE}m1: followed by the output of \`openssl rand -base64 32\``,
  ),
  rule(
    ['ADMIN_TOKEN'],
    s => isEmbedded(s) || s.ADMIN_TOKEN !== undefined,
    `${MAKE}the output of \`openssl rand -base64 32\``,
  ),
  rule(
    ['DATABASE_URL'],
    s => !isEmbedded(s) || s.DIRECT_DATABASE_URL === undefined,
    'is missing, and DIRECT_DATABASE_URL is of no use without it; set both or neither, for example ' +
      'DATABASE_URL=postgres://USER:PASSWORD@POOLER:6432/DATABASE',
  ),
  rule(
    ['WORKERS'],
    s => !isEmbedded(s) || s.WORKERS === 1,
    'must be 1 with the embedded database, which only one process can open; set DATABASE_URL, or ' +
      'for example WORKERS=1',
  ),
]

interface Owned {
  owner: [SettingName, ...number[]]
  /** Spellings that count as the same secret: a copied secret may be in base64, in base64url or unencoded. */
  spellings: string[]
}

/**
 * Rejects a secret that is used twice: if it leaked once, both uses would be compromised. Malformed settings
 * are skipped.
 */
export const secretsDiffer = z.superRefine<Settings>(
  (values, context) => {
    const owners = new Map<string, Owned['owner']>()
    for (const { owner, spellings } of secretsIn(values, name => !isMalformed(context, name))) {
      const twin = spellings.map(spelling => owners.get(spelling)).find(found => found !== undefined)
      if (twin)
        context.addIssue({
          code: 'custom',
          path: owner,
          message: `is the same secret as ${place(twin)}; ${ONE_EACH}`,
        })
      for (const spelling of spellings) owners.set(spelling, owner)
    }
  },
  { when: () => true },
)

const ONE_EACH = 'use a different random one, for example the output of `openssl rand -hex 32`'

function secretsIn(s: Settings, isUsable: (name: SettingName) => boolean): Owned[] {
  const keys = isUsable('MASTER_KEYS') ? (s.MASTER_KEYS ?? []) : []
  const tokens = isUsable('ADMIN_TOKEN') && s.ADMIN_TOKEN !== undefined ? [s.ADMIN_TOKEN] : []
  const services = isUsable('SERVICES') ? (s.SERVICES ?? []) : []
  const operators = isUsable('OPERATORS') ? (s.OPERATORS ?? []) : []
  return [
    ...keys.map(({ bytes }, i): Owned => ({ owner: ['MASTER_KEYS', i], spellings: [base64url(bytes)] })),
    ...tokens.map((token): Owned => ({ owner: ['ADMIN_TOKEN'], spellings: spellings(token) })),
    ...operators.map(({ secret }, i): Owned => ({ owner: ['OPERATORS', i], spellings: spellings(secret) })),
    ...services.map(({ secret }, i): Owned => ({ owner: ['SERVICES', i], spellings: spellings(secret) })),
  ]
}

const base64url = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url')

function spellings(secret: string): string[] {
  const bare = secret.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
  return [bare, base64url(Buffer.from(secret))]
}

/** Formats the place of a problem for an error message: `MASTER_KEYS, entry 2`. */
export function place([name, index]: readonly PropertyKey[]): string {
  return typeof index === 'number' ? `${String(name)}, entry ${index + 1}` : String(name)
}
