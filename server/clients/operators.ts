import type { Config, OperatorConfig } from '../config/load.ts'
import { digest, matches } from '../crypto/credentials.ts'

/** Who has ADMIN_TOKEN. */
const FIRST = 'admin'

/** Who runs the installation. */
export class Operators {
  readonly #operators: OperatorConfig[]

  constructor({ adminToken, operators }: Pick<Config, 'adminToken' | 'operators'>) {
    const first =
      adminToken === undefined ? [] : [{ name: FIRST, readOnly: false, digest: digest(adminToken) }]
    this.#operators = [...first, ...operators]
  }

  /** In constant time for each of them. */
  find(token: string): Omit<OperatorConfig, 'digest'> | undefined {
    return this.#operators.filter(operator => matches(operator.digest, token))[0]
  }
}
