import { randomBytes } from 'node:crypto'
import type { NewCustomer } from '../../db/queries/accounts.ts'
import { newApiKey } from '../clients/api-keys.ts'
import { fromTheSystem, newCustomerId } from '../crypto/credentials.ts'
import { seal } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import type { Use } from '../jwt/kid.ts'
import { ANY, SESSIONS } from '../jwt/scopes.ts'
import { DATA_KEY_ID, dataKeyContext, sealNewSecret } from '../keys/customer-keys.ts'

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
function newSecrets(keyRing: KeyRing, customerId: string) {
  const dataKey = { id: DATA_KEY_ID, bytes: randomBytes(32) }
  const sealSecret = (use: Use) => sealNewSecret(keyRing, dataKey, { customerId, use, version: 1 })
  return {
    sealedDataKey: seal(keyRing.current, dataKey.bytes, dataKeyContext(keyRing, customerId)),
    sealedAccessSecret: sealSecret('access'),
    sealedRefreshSecret: sealSecret('refresh'),
  }
}
