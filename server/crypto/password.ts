import { hash, verify } from '@node-rs/argon2'

/** OWASP's first choice for argon2id, which is the library's default algorithm; memory in KiB. */
const COST = { memoryCost: 19456, timeCost: 2, parallelism: 1 }

/**
 * Of the same cost as a real one, and of no password that anyone could find: salt and output are all zero
 * bits.
 */
const NO_HASH = `$argon2id$v=19$m=19456,t=2,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`

/**
 * In PHC string format, off the main thread. How long a password may be is settled at the door. `salt` (16 bytes): for one that
 * must have the same hash again; else it is random.
 */
export function hashPassword(password: string, salt?: Uint8Array): Promise<string> {
  return hash(password, { ...COST, ...(salt && { salt }) })
}

/**
 * Without a hash (no such account) it does the same work and says no: an unknown email takes as long as a
 * wrong password.
 */
export async function verifyPassword(expected: string | undefined, password: string): Promise<boolean> {
  const matched = await verify(expected ?? NO_HASH, password)
  return matched && expected !== undefined
}
