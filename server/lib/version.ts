import { readFileSync } from 'node:fs'

/** The version of Assay. */
export const VERSION: string = JSON.parse(
  readFileSync(`${import.meta.dirname}/../../package.json`, 'utf8'),
).version
