import type { SealingKey } from './envelope.ts'

/** The keys that encrypt and decrypt records: the installation's id and key, and the master keys. */
export interface KeyRing {
  readonly installationId: string
  readonly installationKey: Buffer
  masterKey(id: string): SealingKey | undefined
  /** Encrypts new data keys. */
  readonly current: SealingKey
}
