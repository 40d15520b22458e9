import { readFileSync } from 'node:fs'

/** Of this program. */
export const VERSION: string = JSON.parse(
  readFileSync(`${import.meta.dirname}/../../package.json`, 'utf8'),
).version
