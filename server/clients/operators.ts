import type { Config } from '../config/load.ts'
import { digest, matches } from '../crypto/credentials.ts'

/** The name of the operator that authenticates with ADMIN_TOKEN. */
const FIRST = 'admin'

/** The operators of the installation, from ADMIN_TOKEN and OPERATORS. */
export class Operators {
  #operators: Config['operators'] = []

  constructor(config: Pick<Config, 'adminToken' | 'operators'>) {
    this.replace(config)
  }

  /** Tokens that are not among these are refused from now on. */
  replace({ adminToken, operators }: Pick<Config, 'adminToken' | 'operators'>) {
    const first =
      adminToken === undefined ? [] : [{ name: FIRST, readOnly: false, digest: digest(adminToken) }]
    this.#operators = [...first, ...operators]
  }

  /** Finds the operator with this token. Every digest is compared in constant time. */
  find(token: string) {
    return this.#operators.filter(operator => matches(operator.digest, token))[0]
  }
}
