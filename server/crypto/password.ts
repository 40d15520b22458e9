import { PasswordThreads } from './password-threads.ts'

/** OWASP's first choice for argon2id, which is the library's default algorithm; memory in KiB. */
export const COST = { memoryCost: 19456, timeCost: 2, parallelism: 1 }

const threads = new PasswordThreads()

/**
 * A hash that costs as much to verify as a real one and that no known password matches: salt and output are
 * all zero bits.
 */
const NO_HASH = `$argon2id$v=19$m=19456,t=2,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`

/**
 * One text for all ways to type a password (NIST SP 800-63B 5.1.1.2): é comes as one code point or as two, and a Mac types
 * U+00A0 for Option and space. NFKC is stable for characters that Unicode has assigned.
 */
export const normalizePassword = (password: string) => password.normalize('NFKC')

/**
 * Hashes a password to PHC string format, in a separate thread. Callers limit the password's length. `salt` (16 bytes) is given
 * only when the hash must be reproducible; otherwise it is random.
 */
export async function hashPassword(password: string, salt?: Uint8Array): Promise<string> {
  const options = { ...COST, ...(salt && { salt }) }
  return (await threads.run({ password: normalizePassword(password), options })) as string
}

/**
 * Without a hash (no such account) it does the same work and returns false: an unknown email takes as long as
 * a wrong password.
 */
export async function verifyPassword(expected: string | undefined, password: string): Promise<boolean> {
  const matched = await threads.run({ password: normalizePassword(password), hash: expected ?? NO_HASH })
  return matched === true && expected !== undefined
}
