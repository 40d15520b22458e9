import { randomBytes } from 'node:crypto'
import { SchemaError } from '../../db/errors.ts'
import type { Querier } from '../../db/queries/change-feed.ts'
import {
  findInstallation,
  findMasterKeys,
  findNeededMasterKeys,
  findSomeDataKeys,
  insertInstallation,
  insertMasterKey,
} from '../../db/queries/customer-keys.ts'
import { randomId } from '../crypto/credentials.ts'
import { checkValue, open, SealError, type SealingKey, seal } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { SetupError } from '../lib/errors.ts'
import { openDataKey } from './customer-keys.ts'

/** The number of customers whose data keys are tried at startup. */
const SAMPLE_SIZE = 10

/**
 * Decrypts the installation key with the master keys, of which the first encrypts and all decrypt. Creates the installation at
 * the very first start. Throws SetupError if the master keys and the database don't belong together, or SchemaError, before
 * anything is written: encrypted data is never "regenerated".
 */
export async function loadKeyRing(db: Querier, ring: [SealingKey, ...SealingKey[]]): Promise<KeyRing> {
  const masterKeys = new Map(ring.map(key => [key.id, key]))
  const known = await findMasterKeys(db, {})
  assertMatches(ring, known)
  assertComplete(masterKeys, await findNeededMasterKeys(db, {}))
  const [current] = ring
  const { id: installationId, sealedKey } = await installation(db, current)
  const masterKey = (id: string) => masterKeys.get(id)
  const installationKey = openInstallation(masterKey, installationId, sealedKey)
  const keyRing = { installationId, installationKey, masterKey, current }
  await assertOpensAny(db, keyRing)
  for (const key of ring) await insertMasterKey(db, { id: key.id, checkValue: checkValue(key) })
  // Another replica may have inserted a different key under the same new id at the same time: the first one
  // wins.
  assertMatches(ring, await findMasterKeys(db, {}))
  return keyRing
}

function assertMatches(ring: SealingKey[], known: { id: string; checkValue: string }[]) {
  const wrong = ring.flatMap(key => {
    const expected = known.find(({ id }) => id === key.id)?.checkValue
    const found = checkValue(key)
    return expected === undefined || expected === found
      ? []
      : [`master key ${key.id}: expected check value ${expected}, found ${found}`]
  })
  if (wrong.length > 0)
    throw new SetupError(
      `${wrong.join('\n')}\nthis is another key under the same id; set MASTER_KEYS to the key that this database was encrypted with`,
    )
}

function assertComplete(ring: Map<string, SealingKey>, needed: { id: string }[]) {
  const missing = needed.filter(({ id }) => !ring.has(id)).map(({ id }) => id)
  if (missing.length > 0)
    throw new SetupError(
      `the database has rows encrypted with ${missing.join(', ')}, which MASTER_KEYS lacks (it has ${[...ring.keys()].join(', ')}); add it after the first`,
    )
}

const contextOf = (installation: string) => ({
  installation,
  customer: '',
  purpose: 'installation key',
  version: 1,
})

async function installation(db: Querier, current: SealingKey) {
  const [found] = await findInstallation(db, {})
  if (found) return found
  const id = randomId(15)
  const sealedKey = seal(current, randomBytes(32), contextOf(id))
  await insertInstallation(db, { id, sealedKey, masterKeyId: current.id, checkValue: checkValue(current) })
  // Another replica may have been first, so read the row that was inserted.
  return (await findInstallation(db, {}))[0]!
}

function openInstallation(masterKey: KeyRing['masterKey'], id: string, sealed: Uint8Array): Buffer {
  try {
    return open(masterKey, sealed, contextOf(id))
  } catch (error) {
    if (!(error instanceof SealError)) throw error
    throw new SetupError(
      `the installation key can't be decrypted: ${error.message}; restore the database's row, or fix MASTER_KEYS`,
    )
  }
}

/**
 * A row that can't be decrypted affects only its customer. If none can be decrypted, the rows belong to another
 * installation.
 */
async function assertOpensAny(db: Querier, keyRing: KeyRing) {
  const tried = await findSomeDataKeys(db, { count: SAMPLE_SIZE })
  if (tried.length > 0 && !tried.some(row => opens(keyRing, row)))
    throw new SchemaError(
      `has customers whose keys can't be decrypted with MASTER_KEYS (${tried.length} tried)`,
    )
}

function opens(
  keyRing: KeyRing,
  { customerId, sealedDataKey }: { customerId: string; sealedDataKey: Uint8Array },
) {
  try {
    return openDataKey(keyRing, customerId, sealedDataKey) !== undefined
  } catch (error) {
    if (!(error instanceof SealError)) throw error
    return false
  }
}
