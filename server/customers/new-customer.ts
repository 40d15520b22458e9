import { randomBytes } from 'node:crypto'
import type { NewCustomer } from '../../db/queries/accounts.ts'
import { newApiKey } from '../clients/api-keys.ts'
import { fromTheSystem, newCustomerId } from '../crypto/credentials.ts'
import { type SealingKey, seal } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { ANY, SESSIONS } from '../jwt/scopes.ts'
import { DATA_KEY_ID, dataKeyContext } from '../keys/customer-keys.ts'
import { newSecret } from '../keys/rotation.ts'

/** Creates the initial data of a customer: its id, its secrets, and an API key, which is shown once. */
export function newCustomer(
  keyRing: KeyRing,
  account: Pick<NewCustomer, 'email' | 'name' | 'passwordHash'>,
  draw = fromTheSystem,
): NewCustomer & { apiKey: string } {
  const customerId = newCustomerId(draw)
  const { id, digest, text } = newApiKey(keyRing, customerId, draw)
  return {
    ...account,
    ...newSecrets(keyRing, customerId),
    customerId,
    newApiKeyId: id,
    apiKeyDigest: digest,
    apiKeyScope: `${ANY} ${SESSIONS}`,
    apiKey: text,
  }
}

/** A data key under the current master key, and under it a secret for each use. */
function newSecrets(keyRing: KeyRing, customer: string) {
  const dataKey: SealingKey = { id: DATA_KEY_ID, bytes: randomBytes(32) }
  const sealSecret = (purpose: 'access' | 'refresh') =>
    seal(dataKey, newSecret(), { installation: keyRing.installationId, customer, purpose, version: 1 })
  return {
    sealedDataKey: seal(keyRing.current, dataKey.bytes, dataKeyContext(keyRing, customer)),
    sealedAccessSecret: sealSecret('access'),
    sealedRefreshSecret: sealSecret('refresh'),
  }
}
